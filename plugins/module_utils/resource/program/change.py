# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load and pin an object's programs and maps, or remove them: observe, plan, apply."""

from __future__ import annotations

import contextlib
import os
from typing import Any, ContextManager, Dict, Iterator, NamedTuple, Optional, Tuple

from ...change import journal
from ...change.step import Plan, Step
from ...change.transaction import Handler, Watch, apply
from ...compile import compilers
from ...errors import SockredirError
from ...kernel import libbpf, objects
from ...kernel.loader import Loadable
from ...state import lock, manifest, store
from ..snapshot import Snapshot
from . import plan as planning
from .apply import Handlers
from .observe import attached_to, draining, observe, recorded_entry
from .source import Compiled, NotYet, Options, check_names, check_pin_dir, obtain


class Result(NamedTuple):
    """What came of it.

    :ivar plan: the steps that were done, or would be.
    :ivar programs: name -> ``id``, ``type``, ``tag``, ``pin``; id and tag None if only a run would tell.
    :ivar maps: name -> ``id``, ``type``, ``pin``.
    :ivar draining: programs that live connections still use: ``name``, ``program_id``, ``since``.
    :ivar notes: what could not be known, or what the compiler said.
    """

    plan: Plan
    programs: Dict[str, Dict[str, Any]] = {}
    maps: Dict[str, Dict[str, Any]] = {}
    digest: Optional[str] = None
    compiler: Optional[str] = None
    object: Optional[str] = None
    draining: Tuple[Dict[str, Any], ...] = ()
    notes: Tuple[str, ...] = ()


def present(
    options: Options,
    check: bool = False,
    watch: Optional[Watch] = None,
    wait_seconds: float = lock.WAIT_SECONDS,
) -> Result:
    """Have the object loaded and its programs and maps pinned.

    :param check: change nothing, say what a run would do.
    :param watch: see :func:`...change.transaction.apply`.
    :param wait_seconds: how long to wait for another run on this host.
    :raises SockredirError: it cannot be; the host is as it was.
    """
    objects.need_root()
    check_names(options)
    try:
        with _turn(options.state_dir, check, wait_seconds):
            host = Snapshot(options.state_dir)
            check_pin_dir(options.pin_dir, check, host)
            return _load(options, obtain(options, check, host), check, watch, host)
    except (NotYet, compilers.Missing, libbpf.Missing) as unknown:
        if not check:
            raise
        return _unknown_in_check_mode(options, str(unknown))


def _turn(state_dir: str, check: bool, wait_seconds: float) -> ContextManager[None]:
    return contextlib.nullcontext() if check else lock.hold(state_dir, wait_seconds)


@contextlib.contextmanager
def planned(name: str, document: manifest.Manifest, host: Snapshot) -> Iterator[Tuple[Plan, Dict[str, Handler]]]:
    """What it takes to load and pin what a manifest names, from the stored object: no compiler, no source.

    A pinned map that does not fit is replaced. The handlers are good while the context lasts.

    :param document: the manifest that says what is wanted; the host's own one helps to observe what is there.
    :raises SockredirError: the object is damaged, or something foreign is in the way.
    """
    entry = document["programs"][name]
    pin_dir = os.path.dirname(min(entry["pins"].values()))
    kept = {key: entry[key] for key in ("src", "compiler", "defines", "config", "max_entries")}
    options = Options(name, pin_dir, host.state_dir, recreate=True, **kept)
    running = os.uname().release
    if entry.get("kernel") not in (None, running):
        raise SockredirError(
            f"bcc compiled the programs of {name} for the kernel {entry['kernel']}, this is {running}",
            "run the role again: it compiles them for this kernel",
        )
    data = store.get(host.state_dir, entry["object_sha256"])
    with _planned(options, Compiled(data, entry["compiler"], entry["source_digest"]), host) as (_wanted, plan, work):
        yield plan, work.handlers()


def removal(name: str, document: Optional[manifest.Manifest], state_dir: str) -> Tuple[Plan, Dict[str, Handler]]:
    """What it takes to have nothing of this name pinned or recorded, once it is detached.

    :param document: the manifest that knows it.
    """
    entry = recorded_entry(document, name)
    if entry is None:
        return [], {}
    pin_dir = os.path.dirname(min(entry["pins"].values()))
    return planning.absent(name, pin_dir, observe(entry, pin_dir, document, name)), Handlers(state_dir).handlers()


def absent(
    name: str,
    pin_dir: str,
    state_dir: str,
    check: bool = False,
    watch: Optional[Watch] = None,
    wait_seconds: float = lock.WAIT_SECONDS,
) -> Result:
    """Have nothing of this name pinned or recorded. Live connections finish on what they have.

    :raises SockredirError: a program is still attached.
    """
    objects.need_root()
    with _turn(state_dir, check, wait_seconds):
        return _remove(name, pin_dir, state_dir, check, watch)


def _remove(name: str, pin_dir: str, state_dir: str, check: bool, watch: Optional[Watch]) -> Result:
    document = manifest.known(state_dir)
    entry = recorded_entry(document, name)
    if entry is None:
        return Result([], draining=draining(document))
    observed = observe(entry, pin_dir, document, name)
    observed = observed._replace(attached=attached_to(observed.pins.values(), document))
    notes: Tuple[str, ...] = ()
    if check and observed.attached:  # an earlier task of the same play would have detached it
        notes = (f"{name} is attached to {', '.join(observed.attached)}: detach it before removing it",)
        observed = observed._replace(attached=())
    plan = planning.absent(name, pin_dir, observed)
    if not check:
        with journal.change("unload", program=name) as done:
            apply(plan, Handlers(state_dir).handlers(), watch)
            done(plan)
        _drop_objects(state_dir)
    return Result(plan, draining=draining(manifest.known(state_dir)), notes=notes)


def _wanted(options: Options, found: Compiled, loadable: Loadable) -> planning.Wanted:
    sha256 = store.sha256(found.data)
    types = {name: (program.prog_type, program.attach_type) for name, program in loadable.programs.items()}
    entry = {
        "object_sha256": sha256,
        "source_digest": found.source_digest,
        "digest": planning.digest(sha256, types, options.config, options.max_entries),
        "compiler": found.compiler,
        "kernel": compilers.kernel_of(found.compiler),
        "src": options.src,
        "defines": options.defines,
        "config": options.config,
        "max_entries": options.max_entries,
        "layout_version": loadable.layout_version,
        "pins": {name: planning.pin_path(options.pin_dir, name) for name in loadable.programs},
        "map_pins": {name: planning.pin_path(options.pin_dir, name) for name in loadable.maps},
    }
    return planning.Wanted(options.name, options.pin_dir, entry, types, loadable.maps, options.recreate)


def _load(options: Options, found: Compiled, check: bool, watch: Optional[Watch], host: Snapshot) -> Result:
    with _planned(options, found, host) as (wanted, plan, work):
        if not check:
            with journal.change("load", program=options.name) as done:
                apply(plan, work.handlers(), watch)
                done(plan)
            _drop_objects(options.state_dir)
            host.refresh()
    programs, maps = _described(wanted, options.pin_dir)
    return Result(
        plan,
        programs,
        maps,
        wanted.entry["digest"],
        found.compiler,
        store.path(options.state_dir, wanted.entry["object_sha256"]),
        draining(host.document),
        found.notes,
    )


@contextlib.contextmanager
def _planned(options: Options, found: Compiled, host: Snapshot) -> Iterator[Tuple[planning.Wanted, Plan, Handlers]]:
    where = options.src if found.compiler != compilers.OBJECT or os.path.exists(options.src) else options.name
    config = {} if found.compiler == compilers.BCC else options.config
    with Loadable(found.data, options.name, where, config, options.max_entries) as loadable:
        wanted = _wanted(options, found, loadable)
        loadable.stamp(wanted.entry["digest"])
        document = host.document
        observed = observe(
            recorded_entry(document, options.name),
            options.pin_dir,
            document,
            options.name,
            wanted.programs,
            wanted.maps,
        )
        observed = observed._replace(
            stored=_is_stored(options.state_dir, wanted.entry["object_sha256"]),
            damage=host.damage or "",
        )
        yield wanted, planning.present(wanted, observed), Handlers(options.state_dir, found.data, loadable)


def _is_stored(state_dir: str, digest: str) -> bool:
    try:
        store.get(state_dir, digest)
    except SockredirError:
        return False
    return True


def _drop_objects(state_dir: str) -> None:
    """Keep on disk what the manifest, or a rollback, could load again; all of them if that cannot be known."""
    try:
        both = (manifest.known(state_dir), manifest.previous(state_dir))
    except manifest.Damaged:
        return
    store.keep_only(state_dir, [digest for document in both for digest in manifest.objects(document)])


def _described(wanted: planning.Wanted, pin_dir: str) -> Tuple[Dict[str, Dict[str, Any]], Dict[str, Dict[str, Any]]]:
    """What is pinned by now; in check mode what is not yet has no id."""
    programs, maps = {}, {}
    for name, types in wanted.types.items():
        path = planning.pin_path(pin_dir, name)
        pin = objects.at(path) if os.path.isdir(pin_dir) else None
        loaded = pin.program if pin else None
        programs[name] = {
            "id": loaded.id if loaded else None,
            "tag": loaded.tag if loaded else None,
            "type": libbpf.prog_type_name(types[0]),
            "pin": path,
        }
    for name, one in wanted.maps.items():
        path = planning.pin_path(pin_dir, name)
        pin = objects.at(path) if os.path.isdir(pin_dir) else None
        maps[name] = {"id": pin.id if pin and pin.kind == "map" else None, "type": one.type, "pin": path}
    return programs, maps


def _unknown_in_check_mode(options: Options, reason: str) -> Result:
    """Check mode with nothing to look at: it would be loaded, more is not known."""
    try:
        entry = recorded_entry(manifest.known(options.state_dir), options.name) or {}
    except SockredirError:
        entry = {}
    after = {"src": options.src, "config": options.config, "max_entries": options.max_entries}
    step = Step("load", f"programs of {options.name}", entry.get("digest"), after)
    return Result([step], notes=(f"{reason}: what a run would load cannot be known in full",))
