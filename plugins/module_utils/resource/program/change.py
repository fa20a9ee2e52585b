# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load and pin an object's programs and maps, or remove them: observe, plan, apply."""

from __future__ import annotations

import contextlib
import os
from typing import Any, ContextManager, Dict, NamedTuple, Optional, Tuple

from ...change import journal
from ...change.step import Plan, Step
from ...change.transaction import Handler, Watch, apply
from ...compile import compilers
from ...errors import SockredirError
from ...kernel import libbpf, objects
from ...state import lock, manifest, store
from ..snapshot import Snapshot
from . import plan as planning
from .apply import Handlers, handlers
from .observe import attached_to, draining, observe, recorded_entry
from .planned import planned
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


def _load(options: Options, found: Compiled, check: bool, watch: Optional[Watch], host: Snapshot) -> Result:
    with planned(options, found, host) as work:
        if not check:
            with journal.change("load", program=options.name) as done:
                apply(work.steps, handlers(options.state_dir, work), watch)
                done(work.steps)
            _drop_objects(options.state_dir)
            host.refresh()
    wanted = work.wanted
    programs, maps = _described(wanted, options.pin_dir)
    return Result(
        work.steps,
        programs,
        maps,
        wanted.entry["digest"],
        found.compiler,
        store.path(options.state_dir, wanted.entry["object_sha256"]),
        draining(host.document),
        found.notes,
    )


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
