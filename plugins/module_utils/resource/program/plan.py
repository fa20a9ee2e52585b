# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps load and pin an object's programs and maps, or remove them. Pure: decides, does nothing.

Live connections go on through all of it: a socket keeps the program that it was inserted with, that keeps its maps, and
maps that are pinned already go on serving the new programs.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ...change.step import UNKNOWN, Plan, Step
from ...errors import SockredirError
from ...kernel.map_spec import MapSpec, differences
from ...kernel.model import Pin
from ...state.manifest import LEAVING_PINS

#: Ends the name of a pin that is about to take the place of another; only a killed run leaves one.
TEMPORARY = "__new"
#: What of a manifest entry the kernel said.
IDS = ("program_ids", "program_tags", "map_ids")
_SHOWN = 4


class HostMap(NamedTuple):
    """A map in the kernel."""

    id: int
    spec: MapSpec


class Wanted(NamedTuple):
    """An object to be loaded: what compiled code and the options come to.

    :ivar entry: its section of the manifest, without what the kernel will say.
    :ivar types: program name -> program type and attach type, as in <linux/bpf.h>.
    :ivar maps: the maps to pin, by name.
    :ivar recreate: whether a pinned map that does not fit may be replaced by a new, empty one.
    """

    name: str
    pin_dir: str
    entry: Dict[str, Any]
    types: Dict[str, Tuple[int, int]]
    maps: Dict[str, MapSpec]
    recreate: bool = False

    @property
    def programs(self) -> Tuple[str, ...]:
        """The names of its programs."""
        return tuple(self.types)


class Observed(NamedTuple):
    """What is on the host.

    :ivar pin_dir_exists: whether the pins' directory is there.
    :ivar pins: path -> what is there, of the paths of interest.
    :ivar maps: path -> the map pinned there.
    :ivar running: map name -> the map that our loaded programs use under this name, pinned or not.
    :ivar entry: the program's section of the manifest; no ids in it if they are of another boot.
    :ivar same_boot: whether the manifest was written since the last boot.
    :ivar taken: path -> the other program of the manifest that has its pin there.
    :ivar stored: whether the object is in the store, intact.
    :ivar leftovers: paths of temporary pins.
    :ivar others: what else is in the pins' directory, by path.
    :ivar attached: to what our programs are attached, in words.
    :ivar damage: what is wrong with the manifest, in one line; else empty.
    """

    pin_dir_exists: bool = True
    pins: Dict[str, Pin] = {}
    maps: Dict[str, HostMap] = {}
    running: Dict[str, HostMap] = {}
    entry: Optional[Dict[str, Any]] = None
    same_boot: bool = True
    taken: Dict[str, str] = {}
    stored: bool = False
    leftovers: Tuple[str, ...] = ()
    others: Tuple[str, ...] = ()
    attached: Tuple[str, ...] = ()
    damage: str = ""


class Load(NamedTuple):
    """:ivar reuse: map name -> id of the map to go on with."""

    reuse: Dict[str, int]


class Pinned(NamedTuple):
    """:ivar kind: ``program`` or ``map``.
    :ivar name: in the object.
    :ivar id: of a map that is there already; None: what has just been loaded.
    """

    kind: str
    name: str
    id: Optional[int] = None


class Recorded(NamedTuple):
    """:ivar entry: the section of the manifest to be written under the name, ids apart."""

    name: str
    entry: Dict[str, Any]


class Identified(NamedTuple):
    """:ivar replaced: our own programs that give way, name -> id."""

    name: str
    replaced: Dict[str, int]


class Forgotten(NamedTuple):
    """:ivar name: whose section of the manifest goes."""

    name: str


def digest(
    object_sha256: str, programs: Dict[str, Tuple[int, int]], config: Dict[str, Any], max_entries: Dict[str, Any]
) -> str:
    """The identity of loaded programs: all that makes them what they are, before they are loaded.

    :param programs: name -> program type and attach type.
    """
    whole = [object_sha256, {name: list(types) for name, types in programs.items()}, config, max_entries]
    text = json.dumps(whole, sort_keys=True, default=str)
    return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()


def pin_path(pin_dir: str, name: str) -> str:
    """Where a program or map of this name is pinned."""
    return f"{pin_dir}/{name}"


def present(wanted: Wanted, observed: Observed) -> Plan:
    """The steps after which the wanted object is loaded and pinned; none if it is.

    :raises SockredirError: something foreign is in the way, or a pinned map does not fit.
    """
    _refuse_taken(wanted, observed)
    kept = {name: _kept_map(wanted, observed, name) for name in wanted.maps}
    load = not _is_running(wanted, observed, kept)
    steps = [_make_directory(wanted.pin_dir)] if not observed.pin_dir_exists else []
    steps += [_unpin(path, "left by a run that was killed") for path in observed.leftovers]
    if not observed.stored:
        steps.append(Step("store", f"object {wanted.entry['object_sha256']}", None, "stored"))
    if load:
        steps.append(_load(wanted, observed, kept))
    steps += _record(wanted, observed)
    for name in wanted.maps:
        steps += _pin_map(wanted, observed, name, kept[name])
    if load:
        steps += [_pin_program(wanted, observed, name) for name in wanted.programs]
    steps += [_unpin(path, _shown(observed.pins[path])) for path in _obsolete(wanted, observed)]
    return steps + _identify(wanted, observed, load, kept)


def absent(name: str, pin_dir: str, observed: Observed) -> Plan:
    """The steps after which nothing of this name is pinned or recorded; none if that is so.

    Pins of others stay, and so do maps that another recorded program has pinned at the same place.

    :raises SockredirError: a program is still attached.
    """
    if observed.entry is None:
        return []
    if observed.attached:
        raise SockredirError(
            f"{name} is still attached to {', '.join(observed.attached)}",
            "detach it first: sockmap_attach with state=absent",
        )
    ours = [path for path in recorded_pins(observed.entry) if _removable(path, observed)]
    steps = [_unpin(path, _shown(observed.pins[path])) for path in ours]
    steps += [_unpin(path, "left by a run that was killed") for path in observed.leftovers]
    steps.append(Step("forget", f"manifest: programs.{name}", _summary(observed.entry), None, Forgotten(name)))
    left = set(observed.others) | set(observed.pins) - set(ours)
    if observed.pin_dir_exists and not left:
        steps.append(Step("remove_directory", pin_dir, "directory", None))
    return steps


def _is_running(wanted: Wanted, observed: Observed, kept: Dict[str, Optional[int]]) -> bool:
    """Whether the wanted programs are pinned and use the maps that are to be kept."""
    pins = [observed.pins.get(pin_path(wanted.pin_dir, name)) for name in wanted.programs]
    if not all(pin and pin.digest == wanted.entry["digest"] for pin in pins):
        return False
    used = {name: found.id for name, found in observed.running.items()}
    return all(number is not None and used.get(name, number) == number for name, number in kept.items())


def _refuse_taken(wanted: Wanted, observed: Observed) -> None:
    for name in wanted.programs + tuple(wanted.maps):
        path = pin_path(wanted.pin_dir, name)
        pin, kind = observed.pins.get(path), "map" if name in wanted.maps else "program"
        if kind == "program" and path in observed.taken:
            raise SockredirError(
                f"{path} is the pin of {observed.taken[path]}, another program of this collection",
                "use another pin_dir, or remove that one first",
            )
        if pin and (pin.kind in ("directory", "symlink") or not (_fits(pin, kind) or _claimed(observed, path))):
            raise SockredirError(
                f"{path} is taken by a foreign {_shown(pin)}",
                f"remove it if nobody needs it (rm {path}), or use another pin_dir",
            )


def _fits(pin: Pin, kind: str) -> bool:
    """Whether a pin may be ours: any map of the right shape may serve, but only programs that carry our mark."""
    return pin.kind == kind and (kind == "map" or pin.digest is not None)


def _claimed(observed: Observed, path: str) -> bool:
    """Whether the manifest says that we pinned at this path since the last boot: then what is there took our place."""
    return observed.same_boot and path in recorded_pins(observed.entry or {})


def _kept_map(wanted: Wanted, observed: Observed, name: str) -> Optional[int]:
    """The id of the map to go on with: the one our programs use, else the pinned one. None: a new one is needed.

    Live sockets are in the one that our programs use. A map that another object shares is where that one pinned it.
    """
    path = pin_path(wanted.pin_dir, name)
    running, pinned = observed.running.get(name), observed.maps.get(path)
    found = pinned or running if path in observed.taken else running or pinned
    if not found:
        return None
    lines = differences(found.spec, wanted.maps[name])
    if not lines:
        return found.id
    if wanted.recreate:
        return None
    more = f" (and {len(lines) - _SHOWN} more)" if len(lines) > _SHOWN else ""
    raise SockredirError(
        f"the map {path} does not fit the new object: {'; '.join(lines[:_SHOWN])}{more}",
        "keep its layout, or set on_incompatible_map=recreate: live connections then finish on the old map",
        "\n".join(lines),
    )


def _make_directory(path: str) -> Step:
    return Step("make_directory", path, None, "directory, mode 0700")


def _unpin(path: str, what: Any) -> Step:
    return Step("unpin", path, what, None)


def _load(wanted: Wanted, observed: Observed, kept: Dict[str, Optional[int]]) -> Step:
    before = _summary(observed.entry) if observed.entry else None
    reuse = {name: number for name, number in kept.items() if number is not None}
    return Step("load", f"programs of {wanted.name}", before, _summary(wanted.entry), Load(reuse))


def _summary(entry: Dict[str, Any]) -> Dict[str, Any]:
    return {key: entry.get(key) for key in ("digest", "compiler", "config", "max_entries")}


def _pin_map(wanted: Wanted, observed: Observed, name: str, kept: Optional[int]) -> List[Step]:
    path = pin_path(wanted.pin_dir, name)
    pin = observed.pins.get(path)
    if pin and pin.kind == "map" and pin.id == kept:
        return []
    after = {"map": name, "id": UNKNOWN if kept is None else kept}
    what = Pinned("map", name, kept)
    return [Step("replace", path, _shown(pin), after, what) if pin else Step("pin", path, None, after, what)]


def _pin_program(wanted: Wanted, observed: Observed, name: str) -> Step:
    path = pin_path(wanted.pin_dir, name)
    pin = observed.pins.get(path)
    after: Dict[str, Any] = {"program": name, "digest": wanted.entry["digest"]}
    what = Pinned("program", name)
    return Step("replace", path, _shown(pin), after, what) if pin else Step("pin", path, None, after, what)


def _record(wanted: Wanted, observed: Observed) -> List[Step]:
    """Before any pin is made: so a killed run's pins can be found."""
    known = {key: value for key, value in (observed.entry or {}).items() if key not in (*IDS, LEAVING_PINS)}
    if known == wanted.entry and observed.same_boot and not observed.damage:
        return []
    changed = [key for key, value in wanted.entry.items() if known.get(key) != value]
    before: Any = {key: known.get(key) for key in changed} if observed.entry else observed.damage or None
    after: Any = {key: wanted.entry[key] for key in changed}
    if not changed:
        before, after = observed.damage or "of another boot", "of this boot"
    subject = f"manifest: programs.{wanted.name}"
    return [Step("record", subject, before, after, Recorded(wanted.name, wanted.entry))]


def _identify(wanted: Wanted, observed: Observed, load: bool, kept: Dict[str, Optional[int]]) -> List[Step]:
    entry = observed.entry or {}
    before = {key: entry.get(key, {}) for key in ("program_ids", "map_ids")}
    after: Any = UNKNOWN
    if not load:
        ids = {name: observed.pins[pin_path(wanted.pin_dir, name)].id for name in wanted.programs}
        after = {"program_ids": ids, "map_ids": kept}
    if before == after:
        return []
    detail = Identified(wanted.name, _replaced(wanted, observed) if load else {})
    return [Step("identify", f"manifest: ids of {wanted.name}", before, after, detail)]


def _replaced(wanted: Wanted, observed: Observed) -> Dict[str, int]:
    """Our own programs that give way, by name."""
    pins = {name: observed.pins.get(pin_path(wanted.pin_dir, name)) for name in wanted.programs}
    return {name: pin.id for name, pin in pins.items() if pin and pin.digest}


def _obsolete(wanted: Wanted, observed: Observed) -> List[str]:
    """Pins of an earlier version of the object that this one does not have."""
    kept = {pin_path(wanted.pin_dir, name) for name in wanted.programs + tuple(wanted.maps)}
    return [path for path in recorded_pins(observed.entry or {}) if path not in kept and _removable(path, observed)]


def recorded_pins(entry: Dict[str, Any]) -> List[str]:
    """The paths of the pins that a manifest's entry has, and of those that a rollback is to take away."""
    return [path for key in ("pins", "map_pins") for path in sorted(entry.get(key, {}).values())] + sorted(
        entry.get(LEAVING_PINS, {})
    )


def _removable(path: str, observed: Observed) -> bool:
    pin, entry = observed.pins.get(path), observed.entry or {}
    if not pin or path in observed.taken:
        return False
    if path in entry.get(LEAVING_PINS, {}):
        return pin.id == entry[LEAVING_PINS][path]
    if path in entry.get("pins", {}).values():
        return pin.kind == "program" and (pin.digest is not None or pin.id in entry["program_ids"].values())
    known = entry.get("map_ids", {})
    return pin.kind == "map" and (pin.id in known.values() or not known)


def _shown(pin: Pin) -> str:
    if not pin.object:
        return pin.kind
    name = getattr(pin.object, "name", "")
    return f"{pin.kind} {name} (id {pin.id})".replace("  ", " ")
