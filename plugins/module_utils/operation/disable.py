# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove everything of this collection from a host, without losing a byte of a live connection.

First the programs are told to drain: from then on each direction goes on by TCP, behind what was redirected before.
Then they are taken off, cgroups first, and the pins go. A live socket keeps the verdict that it was inserted with, and
that keeps the maps with its unread data: both go when the last such socket closes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import replace
from typing import Any, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Tuple

from .. import atomic_file
from ..change.step import Plan, Step
from ..change.transaction import Handler, Undo, Watch, apply
from ..datapath import live
from ..datapath.settings import Found
from ..errors import SockredirError
from ..host import cgroups, files, install, metrics_timer, systemd
from ..kernel import objects
from ..resource.attachment import apply as attachment_apply
from ..resource.attachment import observe as attachment_observe
from ..resource.attachment import plan as attachment_plan
from ..resource.intercept import apply as intercept_apply
from ..resource.intercept import observe as intercept_observe
from ..resource.intercept import plan as intercept_plan
from ..resource.metrics import apply as metrics_apply
from ..resource.metrics import observe as metrics_observe
from ..resource.metrics import plan as metrics_plan
from ..resource.program import apply as program_apply
from ..resource.program import change as program
from ..resource.services import apply as services_apply
from ..resource.services import observe as services_observe
from ..resource.services import plan as services_plan
from ..resource.settings import apply as settings_apply
from ..resource.setup import apply as setup_apply
from ..resource.snapshot import Snapshot
from ..state import lock, manifest, store
from . import disable_plan
from .found import document as found_document

#: The kernel frees a program a moment after its last user has gone.
_SETTLE_SECONDS = 0.5
#: Everything that we ever put in a state directory, what is needed longest last.
_STATE_DIRECTORIES = (store.DIRECTORY, manifest.DIRECTORY, "src")
_STATE_FILES = (manifest.PREVIOUS, manifest.CURRENT, "settings.lock", "trace.lock", lock.NAME)


class Places(NamedTuple):
    """Where our things may be.

    :ivar cgroup: the accelerated cgroup, as the operator names it.
    :ivar restart_services: whether the services in its slice may be restarted to leave it.
    """

    pin_dir: str
    state_dir: str
    unit_dir: str
    prefix: str
    cgroup: str
    restart_services: bool = False


class Result(NamedTuple):
    """:ivar draining: programs that live connections still use.
    :ivar remaining: what was left, with the reason, one line each.
    :ivar waiting: services that leave the cgroup at their next start.
    """

    steps: Plan
    draining: List[Dict[str, Any]]
    remaining: List[str]
    waiting: List[str]


def preview(places: Places) -> Result:
    """What :func:`ensure` would do; reads only. Nothing is draining or remaining yet."""
    work = _Work(places)
    steps = list(work.steps())
    return Result(steps, [], [], [] if places.restart_services else work.waiting())


def ensure(places: Places, wait_seconds: float, watch: Optional[Watch] = None) -> Result:
    """Have nothing of this collection on the host.

    :raises SockredirError: something cannot be removed; the host is as it was.
    """
    idle = _Work(places)
    if not list(idle.steps()):
        return Result([], [], remaining(places, []), idle.waiting())
    with lock.hold(places.state_dir, wait_seconds):
        work = _Work(places)
        apply(work.steps(), work.handlers, watch)
    return Result(work.done, _settle(work.programs), remaining(places, work.cgroups), work.waiting())


class _Work:
    """Steps that are planned while they are done.

    The manifest is not amended on the way: it goes as a whole, last. So a full disk is not an obstacle, and a run
    after one that was killed knows all that there was.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.host = Snapshot(places.state_dir)
        known = self.host.document
        if known is None or self.host.damage is not None:
            known = found_document(places.pin_dir, known, self.host)
        self.document = known
        self.handlers: Dict[str, Handler] = {}
        self.done: Plan = []
        self.programs = _programs(self.document)
        self.cgroups: List[str] = list(self.document.get("cgroups", []))
        self.services = services_plan.Wanted(
            places.cgroup, places.unit_dir, restart=places.restart_services, present=False
        )
        self.seen_services = services_observe.observe(self.services, self.host)

    def steps(self) -> Iterator[Step]:
        yield from self._part("settings", disable_plan.drain(self._settings()), {"drain": self._drain})
        # No connection may go to a proxy that is no longer told where it wanted to go.
        told = {"settings": intercept_apply.write(self.places.pin_dir)}
        yield from self._part("intercepts", self._intercept_steps(), told)
        # Before anything that can only be undone by making it new: restarting a service is what fails most.
        yield from self._unit_files("services", self._file_steps(drop_ins=True), self.services)
        yield from self._part("leaf", self._leaf_steps(), {"remove_leaf": _remove_leaf})
        gone: FrozenSet[Tuple[str, str]] = frozenset()
        for entry in reversed(attachment_observe.ordered(self.document)):
            wanted = attachment_observe.wanted_of(entry)._replace(present=False, gone=gone)
            gone |= {(wanted.program, wanted.target)}
            steps = attachment_plan.plan(wanted, attachment_observe.observe(wanted, self.host))
            handlers = attachment_apply.handlers(wanted, self.places.state_dir, record_changes=False)
            yield from self._part(f"{wanted.program} {wanted.target}", steps, handlers)
        for name in self.document["programs"]:
            steps, handlers = program.removal(name, self.document, self.places.state_dir)
            yield from self._part(name, steps, {**handlers, "forget": lambda _step: None})
        yield from self._part("metrics", self._metrics_steps(), metrics_apply.handlers())
        yield from self._unit_files("files", self._file_steps(drop_ins=False), self.services._replace(restart=False))
        yield from self._part("slice", self._slice_steps(), {"stop_slice": self._stop_slice})
        yield from self._part("pins", self._directory_steps(), {"remove_directory": program_apply.remove_directory})
        yield from self._part("state", self._state_steps(), {"remove_state": self._remove_state})

    def _part(self, name: str, steps: Plan, handlers: Dict[str, Handler]) -> Iterator[Step]:
        self.handlers.update({f"{name} {verb}": handler for verb, handler in handlers.items()})
        for step in steps:
            told = replace(disable_plan.named(step), verb=f"{name} {step.verb}")
            self.done.append(told)
            yield told
        if steps:
            self.host.refresh()

    def _unit_files(self, name: str, steps: Plan, wanted: services_plan.Wanted) -> Iterator[Step]:
        """A part that removes files, with what systemd is to make of it."""
        after = services_plan.plan(wanted, self.seen_services, [step.subject for step in steps])
        init = services_apply.Changes(wanted)

        def remove(step: Step) -> Undo:
            roots = (self.places.unit_dir, *install.Places(self.places.prefix).shared)
            undo = files.change(step.subject, None, setup_apply.keep_of(step.subject, *roots))
            return init.guard(step.subject, undo)

        yield from self._part(name, steps + after, {"file": remove, "package": self._package, **init.handlers()})

    # What there is.

    def _settings(self) -> Optional[Found]:
        try:
            return live.read_settings(self.places.pin_dir)
        except live.OtherLayout:
            # Another version loaded them, and only that one could tell them to drain. They can be removed all the same:
            # live connections keep what they were inserted with, and it goes with the last of them.
            return None

    def _intercept_steps(self) -> Plan:
        try:
            return intercept_plan.steps([], [], intercept_observe.observe(self.places.pin_dir, self.document))
        except SockredirError:  # rules that nobody understands go with their map
            return []

    def _metrics_steps(self) -> Plan:
        return metrics_plan.before_files(None, metrics_observe.observe(self.document, self.places.unit_dir))

    def _leaf_steps(self) -> Plan:
        leaves = [os.path.join(path, cgroups.LEAF) for path in self.cgroups]
        return [Step("remove_leaf", leaf, "cgroup", None) for leaf in cgroups.removable(leaves)]

    def _file_steps(self, drop_ins: bool) -> Plan:
        """:param drop_ins: whether those of services, which are a part of their own, or all the others."""
        steps = [step for step in self._all_files() if (os.path.basename(step.subject) in systemd.DROP_INS) == drop_ins]
        return steps if drop_ins else steps + self._package_steps()

    def _all_files(self) -> Plan:
        places = install.Places(self.places.prefix)
        unit_dir = self.places.unit_dir
        paths = {places.launcher, os.path.join(unit_dir, systemd.UNIT), systemd.wants_link(unit_dir)}
        paths |= {*metrics_timer.paths(unit_dir), *places.documents}
        moved = systemd.drop_ins(unit_dir)
        paths |= {systemd.drop_in_path(unit_dir, name, kind) for name in moved for kind in systemd.DROP_INS}
        recorded = [path for path in self.document["files"] if not path.startswith(places.package + "/")]
        return disable_plan.remove_files({path: files.read(path) for path in paths | set(recorded)}, recorded)

    def _package_steps(self) -> Plan:
        places = install.Places(self.places.prefix)
        if not os.path.lexists(places.package) and not install.stale(places):
            return []
        before = install.summary(install.installed(places)) or "unfinished"
        return [Step("package", places.package, before, None)]

    def _slice_steps(self) -> Plan:
        """The slice without a unit file that nothing is in any more; a plan in which it has gone already says so."""
        idle = services_observe.idle_slice(self.places.cgroup, self.host)
        if idle is None or idle[1] in {step.subject for step in self.done}:
            return []
        return [Step("stop_slice", idle[1], "cgroup", None, disable_plan.Slice(idle[0]))]

    def waiting(self) -> List[str]:
        """The services that are still in the slice."""
        observed = services_observe.observe(self.services, self.host) if self.done else self.seen_services
        return services_plan.waiting(self.services, observed._replace(drop_ins=self.seen_services.drop_ins))

    def _directory_steps(self) -> Plan:
        """It is also removed if an earlier run created it and then failed."""
        pin_dir = self.places.pin_dir
        return disable_plan.remove_directory(pin_dir, _listing(pin_dir), self.done) if os.path.isdir(pin_dir) else []

    def _state_steps(self) -> Plan:
        there = [name for name in _STATE_FILES + _STATE_DIRECTORIES if os.path.lexists(self._state(name))]
        return [Step("remove_state", self.places.state_dir, "directory", None)] if there else []

    def _state(self, name: str) -> str:
        return os.path.join(self.places.state_dir, name)

    # What is done.

    def _drain(self, step: Step) -> Undo:
        return settings_apply.write_settings(
            self.places.pin_dir, self.places.state_dir, step.need(disable_plan.NewSettings).settings
        )

    def _stop_slice(self, step: Step) -> Undo:
        name = step.need(disable_plan.Slice).name
        systemd.stop(name)
        return lambda: systemd.start(name)

    def _package(self, _step: Step) -> Undo:
        places = install.Places(self.places.prefix)
        before = install.installed(places)
        install.remove(places)

        def undo() -> None:
            if before:
                install.install(places, before)

        return undo

    def _remove_state(self, _step: Step) -> Undo:
        for name in _STATE_DIRECTORIES:
            shutil.rmtree(self._state(name), ignore_errors=True)
        for name in _STATE_FILES:
            atomic_file.remove(self._state(name))
        with contextlib.suppress(OSError):
            os.rmdir(self.places.state_dir)
        return None


def _remove_leaf(step: Step) -> Undo:
    cgroups.remove([step.subject])

    def undo() -> None:
        cgroups.create(step.subject)

    return undo


def _programs(document: manifest.Manifest) -> List[Dict[str, Any]]:
    """Every one of our programs that may be in the kernel, as entries of ``draining``."""
    known = list(document["draining"]) if manifest.ids_valid(document) else []
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for entry in document["programs"].values():
        for name, path in entry["pins"].items():
            pin = objects.at(path)
            if pin and pin.kind == "program":
                known.append({"name": name, "program_id": pin.id, "since": since})
    return known


def _settle(programs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Those that stay, when the others have had time to go."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        alive = set(objects.alive([entry["program_id"] for entry in programs])) if programs else set()
        if not alive or time.monotonic() >= deadline:
            return [entry for entry in programs if entry["program_id"] in alive]
        time.sleep(0.05)


def _listing(directory: str) -> List[str]:
    try:
        return [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def remaining(places: Places, made: List[str]) -> List[str]:
    """What is still there, in lines."""
    lines = [
        f"cgroup {path} is still in use: once its processes have ended, disable again or rmdir it"
        for path in made
        if os.path.isdir(path)
    ]
    pins = _listing(places.pin_dir)
    if pins:
        lines.append(f"{places.pin_dir} has pins of others: {', '.join(os.path.basename(path) for path in pins)}")
    left = _listing(places.state_dir)
    if left:
        lines.append(f"{places.state_dir} has files of others: {', '.join(os.path.basename(path) for path in left)}")
    return lines
