# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe an object's programs and maps. Reads only."""

from __future__ import annotations

import errno
import os
from typing import Any, Dict, Iterable, List, Optional, Tuple

from ...kernel import hooks, libbpf, objects
from ...kernel.loader import spec
from ...kernel.model import LinkInfo, MapInfo, Pin, Program
from ...state import manifest
from . import plan as planning

_SOCKET_MAPS = (libbpf.MAP_TYPE_SOCKMAP, libbpf.MAP_TYPE_SOCKHASH)


def draining(document: Optional[manifest.Manifest]) -> Tuple[Dict[str, Any], ...]:
    """The replaced or removed programs that live connections still use."""
    if not document or not document["draining"] or not manifest.ids_valid(document):
        return ()
    return tuple(still_used(document["draining"]))


def still_used(entries: Iterable[Dict[str, Any]]) -> List[Dict[str, Any]]:
    entries = list(entries)
    alive = objects.alive([entry["program_id"] for entry in entries])
    return [entry for entry in entries if entry["program_id"] in alive]


def recorded_entry(document: Optional[manifest.Manifest], name: str) -> Optional[Dict[str, Any]]:
    """The program's section; without ids if they are of another boot."""
    entry = ((document or {}).get("programs") or {}).get(name)
    if entry and not manifest.ids_valid(document or {}):
        return dict(entry, program_ids={}, program_tags={}, map_ids={})
    return entry


def observe(
    entry: Optional[Dict[str, Any]],
    pin_dir: str,
    document: Optional[manifest.Manifest],
    name: str,
    programs: Iterable[str] = (),
    maps: Iterable[str] = (),
) -> planning.Observed:
    recorded = planning.recorded_pins(entry or {})
    wanted = [planning.pin_path(pin_dir, one) for one in [*programs, *maps]]
    pins = {path: _known(pin, entry) for path in dict.fromkeys(wanted + recorded) for pin in [objects.at(path)] if pin}
    pinned = {path: pin.map for path, pin in pins.items() if pin.map}
    loaded = [pin.program for pin in pins.values() if pin.program and pin.program.digest]
    layout = next((one.layout for one in loaded if one.layout is not None), (entry or {}).get("layout_version"))
    names = _listing(pin_dir)
    leftovers = tuple(path for path in names if path.endswith(planning.TEMPORARY) and _stem(path) in wanted + recorded)
    running = _running(loaded, entry, [*maps] or list((entry or {}).get("map_pins", {})))
    return planning.Observed(
        pin_dir_exists=os.path.isdir(pin_dir),
        pins=pins,
        maps={path: planning.HostMap(info.id, spec(info, layout)) for path, info in pinned.items()},
        running={one: planning.HostMap(info.id, spec(info, layout)) for one, info in running.items()},
        entry=entry,
        same_boot=bool(document and manifest.ids_valid(document)),
        taken=_taken(document, name),
        leftovers=leftovers,
        others=tuple(path for path in names if path not in pins and path not in leftovers),
    )


def _known(pin: Pin, entry: Optional[Dict[str, Any]]) -> Pin:
    """A program that has no place for our mark is known by its id."""
    recorded = (entry or {}).get("program_ids", {}).values()
    if pin.program and pin.program.digest is None and pin.id in recorded:
        return pin._replace(object=pin.program._replace(digest=(entry or {}).get("digest")))
    return pin


def _stem(path: str) -> str:
    return path[: -len(planning.TEMPORARY)]


def _listing(pin_dir: str) -> List[str]:
    try:
        return [os.path.join(pin_dir, name) for name in sorted(os.listdir(pin_dir))]
    except FileNotFoundError:
        return []


def _running(loaded: List[Program], entry: Optional[Dict[str, Any]], names: List[str]) -> Dict[str, MapInfo]:
    """The maps behind our loaded programs, by name; the recorded ones if the programs do not use them themselves."""
    used = [number for program in loaded for number in program.map_ids]
    infos = {info.name: info for number in used for info in [_map_info(number)] if info}
    found = {name: infos[_short(name)] for name in names if _short(name) in infos}
    for name, number in ((entry or {}).get("map_ids") or {}).items():
        info = None if name in found else _map_info(number)
        if info and name in names:
            found[name] = info
    return found


def _short(name: str) -> str:
    return name[:15]  # BPF_OBJ_NAME_LEN, less the end


def _map_info(number: int) -> Optional[MapInfo]:
    try:
        with libbpf.map_by_id(number) as descriptor:
            return libbpf.map_info(descriptor)
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _taken(document: Optional[manifest.Manifest], name: str) -> Dict[str, str]:
    others = {other: entry for other, entry in ((document or {}).get("programs") or {}).items() if other != name}
    return {
        path: other
        for other, entry in others.items()
        for key in ("pins", "map_pins")
        for path in entry.get(key, {}).values()
    }


def attached_to(pins: Iterable[Pin], document: Optional[manifest.Manifest]) -> Tuple[str, ...]:
    """To what these pins' programs are attached: by links, to these pins' maps, and to cgroups as the manifest says."""
    pins = list(pins)
    programs = {pin.id for pin in pins if pin.kind == "program"}
    found = [f"link {info.id}" for info in _links() if info.program_id in programs and not _is_dead(info)]
    for pin in pins:
        if pin.map and pin.map.type in _SOCKET_MAPS and programs & set(_map_programs(pin.id)):
            found.append(f"the map {pin.path}")
    for attachment in (document or {}).get("attachments", []):
        cgroup = attachment.get("cgroup")
        if attachment.get("method") == "legacy" and cgroup and programs & set(_cgroup_programs(cgroup)):
            found.append(cgroup)
    return tuple(found)


def _is_dead(info: LinkInfo) -> bool:
    """Whether the link's cgroup or network namespace has gone: it holds its program, but that does not run."""
    kind = {libbpf.LINK_TYPE_CGROUP: hooks.CGROUP, libbpf.LINK_TYPE_NETNS: hooks.NETNS}.get(info.type)
    return kind is not None and info.target_id(kind) == 0


def _links() -> List[LinkInfo]:
    found = []
    for number in libbpf.link_ids():
        try:
            with libbpf.link_by_id(number) as descriptor:
                found.append(libbpf.link_info(descriptor))
        except libbpf.BpfError as error:
            if error.errno != errno.ENOENT:
                raise
    return found


def _map_programs(map_id: int) -> List[int]:
    try:
        with libbpf.map_by_id(map_id) as descriptor:
            return _queried(descriptor, hooks.MAP)
    except libbpf.BpfError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):  # gone; a kernel before 5.18 cannot say
            return []
        raise


def _cgroup_programs(cgroup: str) -> List[int]:
    try:
        number = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone, and its attachments with it
        return []
    with libbpf.Fd(number) as descriptor:
        return _queried(descriptor, hooks.CGROUP)


def _queried(target: libbpf.Descriptor, kind: str) -> List[int]:
    """The programs at every hook of a cgroup or map."""
    found = [libbpf.query(target, hook.attach_type).program_ids for hook in hooks.of_kind(kind)]
    return [number for one in found for number in one]
