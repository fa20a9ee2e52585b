# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole host after its manifest: compare, restore, roll back, steer. No compiler, no Ansible.

:mod:`.plan.host` says how the parts make one plan. Here the parts are looked at and done: programs first, then
settings, then the verdict, then the cgroups, so that no socket enters the map before it has all that it needs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from . import attachment, pin, program, setup
from .apply import Handler, Undo, Watch, apply
from .datapath import live
from .errors import SockredirError
from .host import files, install, mounts
from .kernel.attachments import CGROUP, Attached
from .plan import attachment as attachment_plan
from .plan import host as planning
from .plan import pin as pin_plan
from .plan import setup as setup_plan
from .plan.model import Plan, Step
from .state import lock, manifest, store

Document = manifest.Manifest
WAIT_SECONDS = 60.0
_BPFFS = "/sys/fs/bpf"


class NotEnabled(SockredirError):
    """There is no manifest: nothing of ours is meant to be on this host."""


# --- compare ---


class Comparison(NamedTuple):
    """A host beside its manifest.

    :ivar document: what can be understood of the manifest; None where there is none.
    :ivar steps: what it would take to make the host what the manifest says, each with its kind of drift.
    :ivar foreign: other programs on the accelerated cgroups, by cgroup.
    """

    document: Optional[Document]
    steps: Plan
    foreign: Dict[str, List[Attached]]


def compare(state_dir: str) -> Comparison:
    """How a host differs from its manifest; reads only.

    :raises SockredirError: the kernel does not let us look.
    """
    document = manifest.known(state_dir)
    damage = manifest.damage(state_dir)
    steps: Plan = []
    if damage:
        steps.append(planning.refused("manifest", damage, "manifest_changed"))
    foreign: Dict[str, List[Attached]] = {}
    if document is not None:
        steps += _manifest_drift(state_dir, document, bool(damage))
        for name in document["programs"]:
            steps += _program_drift(state_dir, document, name)
        for entry in ordered(document):
            found, others = _attachment_drift(state_dir, document, entry)
            steps += found
            if others:
                foreign[entry["cgroup"]] = others
        steps += _settings_drift(document) + _file_drift(document)
    return Comparison(document, steps, foreign)


def _manifest_drift(state_dir: str, document: Document, damaged: bool) -> Plan:
    steps: Plan = []
    if not document["committed"] and not damaged:
        steps.append(planning.refused("manifest", "a change was not finished", "unfinished"))
    problem = setup.previous_damage(state_dir)
    if problem:
        steps.append(planning.refused("manifest: previous", problem, "object_changed"))
    for digest in manifest.objects(document):
        try:
            store.get(state_dir, digest)
        except SockredirError as error:
            steps.append(planning.refused(store.path(state_dir, digest), error.message, "object_changed"))
    return steps


def _program_drift(state_dir: str, document: Document, name: str) -> Plan:
    same_boot = manifest.ids_valid(document)
    try:
        with program.planned(name, document, state_dir) as (steps, _handlers):
            pass
    except SockredirError as error:
        return [planning.refused(f"program {name}", error.message, "pin_replaced")]
    # What is wrong with an object is said above, for each.
    return planning.name_drift(planning.PROGRAM, [step for step in steps if step.verb != "store"], same_boot)


def _attachment_drift(state_dir: str, document: Document, entry: Dict[str, Any]) -> Any:
    wanted = setup.entry_wish(entry)._replace(pretend=True)
    try:
        seen = attachment.observe(wanted, state_dir)
        steps = attachment_plan.plan(wanted, seen)
    except SockredirError as error:
        return [planning.refused(wanted.target, error.message, "program_replaced")], []
    others = attachment_plan.foreign(wanted, seen) if wanted.kind == CGROUP else []
    return planning.name_drift(wanted.kind, steps, manifest.ids_valid(document)), others


def _settings_drift(document: Document) -> Plan:
    try:
        found = live.read_settings(document["pin_dir"])
    except SockredirError as error:
        return [planning.refused("settings", error.message, "settings_changed")]
    # Without the map that is missing, not what it would say.
    return setup_plan.settings_steps(document["settings"], found) if found and document["settings"] else []


def _file_drift(document: Document) -> Plan:
    recorded = document["files"]
    found = {path: files.read(path) for path in recorded}
    prefix = document["unit"].get("prefix")
    if prefix:
        places = install.Places(prefix)
        found.update({f"{places.package}/{name}": files.File(text) for name, text in install.installed(places).items()})
    return planning.file_drift(recorded, found, document["unit"])


def ordered(document: Document) -> List[Dict[str, Any]]:
    """The manifest's attachments, verdicts first."""
    return sorted(
        document["attachments"], key=lambda entry: (entry["map"] is None, entry["cgroup"] or "", entry["program"])
    )


# --- make it so ---


class _Making:
    """Steps that are planned while they are done: each part looks at what the parts before it have made."""

    def __init__(self, state_dir: str, document: Document) -> None:
        self.state_dir = state_dir
        self.document = document
        self.handlers: Dict[str, Handler] = {}
        self.done: Plan = []

    def run(self, watch: Optional[Watch]) -> Plan:
        """:returns: what was done, each step with its kind of drift."""
        apply(self._steps(), self.handlers, watch)
        return self.done

    def _steps(self) -> Iterator[Step]:
        yield from self._bpffs()
        programs = self.document["programs"]
        for name in programs:
            if not programs[name].get(manifest.LEAVING):
                with program.planned(name, self.document, self.state_dir) as (steps, handlers):
                    yield from self._part(f"program {name}", planning.PROGRAM, steps, handlers)
        yield from self._settings()
        for entry in self._attachments():
            wanted = setup.entry_wish(entry)
            steps = attachment_plan.plan(wanted, attachment.observe(wanted, self.state_dir))
            handlers = attachment.handlers(wanted, self.state_dir)
            yield from self._part(f"attachment {wanted.target}", wanted.kind, steps, handlers)
        for name in programs:
            if programs[name].get(manifest.LEAVING):
                steps, handlers = program.removal(name, self.document, self.state_dir)
                yield from self._part(f"program {name}", planning.PROGRAM, steps, handlers)

    def _bpffs(self) -> Iterator[Step]:
        pin_dir = self.document["pin_dir"]
        if mounts.bpffs_holding(pin_dir, mounts.read()):
            return
        if not pin_dir.startswith(_BPFFS + "/"):
            raise SockredirError(f"{pin_dir} is not on a bpffs", "mount one there, as it was when the role ran")
        wanted = pin_plan.Wanted(_BPFFS, pin_plan.MOUNTED)
        steps = pin_plan.plan(wanted, pin.observe(wanted))
        yield from self._part("bpffs", planning.BPFFS, steps, pin.handlers())

    def _attachments(self) -> List[Dict[str, Any]]:
        """Those to have, verdicts first; then those to take off, verdicts last."""
        known = ordered(self.document)
        staying = [entry for entry in known if not entry.get(manifest.LEAVING)]
        return staying + [entry for entry in reversed(known) if entry.get(manifest.LEAVING)]

    def _settings(self) -> Iterator[Step]:
        pin_dir, wanted = self.document["pin_dir"], self.document["settings"]
        if wanted:
            paths = setup.Paths(pin_dir, self.state_dir, "")
            steps = setup_plan.settings_steps(wanted, live.read_settings(pin_dir))
            handlers = {"settings": lambda _step: setup.write_settings(paths, wanted)}
            yield from self._part("settings", planning.SETTINGS, steps, handlers)

    def _part(self, name: str, kind: str, steps: Plan, handlers: Dict[str, Handler]) -> Iterator[Step]:
        self.done += planning.name_drift(kind, steps, manifest.ids_valid(self.document))
        self.handlers.update({f"{name} {verb}": handler for verb, handler in handlers.items()})
        for step in steps:
            yield replace(step, verb=f"{name} {step.verb}")


def restore(state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = WAIT_SECONDS) -> Plan:
    """Make the host what its manifest says: after a reboot all of it, else what has drifted.

    A change that was never finished is given up for what was before it.

    :raises NotEnabled: there is no manifest.
    :raises SockredirError: the manifest or an object is damaged, or the kernel refuses; the host is as it was.
    """
    _need_manifest(state_dir)
    with lock.hold(state_dir, wait_seconds):
        document = manifest.current(state_dir)
        if document is None:
            raise not_enabled(state_dir)
        if document["committed"]:
            with manifest.unchanged_on_failure(state_dir):
                return _Making(state_dir, document).run(watch)
        return _go_back(state_dir, watch)


def rollback(state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = WAIT_SECONDS) -> Plan:
    """Go back to what the host was before the last change; live connections finish on what they have.

    :raises NotEnabled: there is no manifest.
    :raises SockredirError: there is nothing to go back to, it is damaged, or the kernel refuses; the host is as it was.
    """
    _need_manifest(state_dir)
    with lock.hold(state_dir, wait_seconds):
        return _go_back(state_dir, watch)


def _go_back(state_dir: str, watch: Optional[Watch]) -> Plan:
    with manifest.unchanged_on_failure(state_dir):
        document = manifest.begin_rollback(state_dir)
        steps = _Making(state_dir, document).run(watch)
        manifest.commit(state_dir)
        return steps


def preview_rollback(state_dir: str) -> Plan:
    """What :func:`rollback` would do, as far as that can be known without doing it.

    :raises SockredirError: as :func:`rollback`.
    """
    _need_manifest(state_dir)
    document = manifest.rollback_target(state_dir)
    steps: Plan = []
    for name, entry in document["programs"].items():
        if not entry.get(manifest.LEAVING):
            with program.planned(name, document, state_dir) as (planned, _handlers):
                steps += planned
    found = live.read_settings(document["pin_dir"])
    steps += setup_plan.settings_steps(document["settings"], found) if document["settings"] else []
    for entry in document["attachments"]:
        wanted = setup.entry_wish(entry)._replace(pretend=True)
        steps += attachment_plan.plan(wanted, attachment.observe(wanted, state_dir))
    return steps


def set_mode(state_dir: str, mode: str, watch: Optional[Watch] = None, wait_seconds: float = WAIT_SECONDS) -> Plan:
    """Enforce, observe or drain, from now on and after a reboot; a roll-back does not lead back over it.

    :raises NotEnabled: there is no manifest.
    :raises SockredirError: there is no settings map, or the manifest is damaged; the host is as it was.
    """
    _need_manifest(state_dir)
    with lock.hold(state_dir, wait_seconds):
        document = manifest.current(state_dir)
        if document is None or not document["settings"]:
            raise not_enabled(state_dir)
        wanted = {**document["settings"], "mode": mode}
        paths = setup.Paths(document["pin_dir"], state_dir, "")
        steps = setup_plan.settings_steps(wanted, live.read_settings(paths.pin_dir))
        if document["settings"] != wanted:
            steps.append(Step("record", "manifest: mode", document["settings"]["mode"], mode))

        def record(_step: Step) -> Undo:
            manifest.amend(state_dir, lambda changed: changed["settings"].update(mode=mode))
            return None

        apply(steps, {"settings": lambda _step: setup.write_settings(paths, wanted), "record": record}, watch)
        return steps


def _need_manifest(state_dir: str) -> None:
    # Asking for what is not there must not make a state directory for the lock.
    if not os.path.lexists(os.path.join(state_dir, manifest.CURRENT)):
        raise not_enabled(state_dir)


def not_enabled(state_dir: str) -> NotEnabled:
    """The error of who needs a manifest where there is none."""
    return NotEnabled(f"not enabled on this host: there is no manifest in {state_dir}", "run the role")
