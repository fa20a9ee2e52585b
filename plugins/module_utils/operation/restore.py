# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the whole host match its manifest: restore, roll back. Needs no compiler and no Ansible.

:mod:`.drift_kinds` says how the parts make one plan. Here the parts are done: programs first, then settings, then what
is attached to the map, then the cgroups, so that no socket enters the map before it has all that it needs.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..change import journal
from ..change.step import UNKNOWN, Plan, Step
from ..change.transaction import Handler, Watch, apply
from ..datapath import live
from ..errors import SockredirError
from ..host import mounts
from ..kernel import hooks
from ..resource.attachment import apply as attachment_apply
from ..resource.attachment import observe as attachment_observe
from ..resource.attachment import plan as attachment_plan
from ..resource.intercept import apply as intercept_apply
from ..resource.intercept import observe as intercept_observe
from ..resource.intercept import plan as intercept_plan
from ..resource.pin import apply as pin_apply
from ..resource.pin import observe as pin_observe
from ..resource.pin import plan as pin_plan
from ..resource.program import apply as program_apply
from ..resource.program import change as program
from ..resource.program import plan as program_plan
from ..resource.program import planned as program_planned
from ..resource.settings import apply as settings_apply
from ..resource.settings import plan as settings_plan
from ..resource.snapshot import Snapshot
from ..state import lock, manifest
from . import drift_kinds

Document = manifest.Manifest
_BPFFS = "/sys/fs/bpf"


class NotEnabled(SockredirError):
    """There is no manifest: nothing of this collection is meant to be on this host."""


class _Restoration:
    """Steps that are planned while they are done: each part looks at what the parts before it have made.

    The plan alone (:meth:`preview`) comes from the same lines: there each part is told what the parts before it would
    have made, and what only a run can know is marked as unknown.
    """

    def __init__(self, document: Document, host: Snapshot) -> None:
        self.state_dir = host.state_dir
        self.document = document
        self.host = host
        self.handlers: Dict[str, Handler] = {}
        self.done: Plan = []
        self.check = False
        #: In a plan alone, what would have been pinned by now, by path.
        self.pinned: Dict[str, program_plan.Pinned] = {}

    def run(self, watch: Optional[Watch]) -> Plan:
        """:returns: what was done, each step with its kind of drift."""
        apply(self._steps(), self.handlers, watch)
        return self.done

    def preview(self) -> Plan:
        """:returns: what :meth:`run` would do."""
        self.check = True
        for _step in self._steps():
            pass
        return self.done

    def _steps(self) -> Iterator[Step]:
        yield from self._bpffs()
        programs = self.document["programs"]
        for name in programs:
            if not programs[name].get(manifest.LEAVING):
                with program_planned.recorded(name, self.document, self.host) as found:
                    handlers = program_apply.handlers(self.state_dir, found)
                    yield from self._part(f"program {name}", drift_kinds.PROGRAM, found.steps, handlers)
        yield from self._settings()
        for entry in self._attachments():
            wanted = attachment_observe.wanted_of(entry)
            observed = attachment_plan.foresee(wanted, attachment_observe.observe(wanted, self.host), self.pinned)
            steps = attachment_plan.plan(wanted, observed)
            handlers = attachment_apply.handlers(wanted, self.state_dir)
            yield from self._part(
                f"attachment {wanted.program} {wanted.target}", hooks.recorded(entry).name, steps, handlers
            )
        yield from self._intercepts()
        for name in programs:
            if programs[name].get(manifest.LEAVING):
                steps, handlers = program.removal(name, self.document, self.state_dir)
                yield from self._part(f"program {name}", drift_kinds.PROGRAM, steps, handlers)

    def _bpffs(self) -> Iterator[Step]:
        pin_dir = self.document["pin_dir"]
        if mounts.bpffs_holding(pin_dir, self.host.mounts):
            return
        if not pin_dir.startswith(_BPFFS + "/"):
            raise SockredirError(f"{pin_dir} is not on a bpffs", "mount one there, as it was when the role ran")
        wanted = pin_plan.Wanted(_BPFFS, pin_plan.MOUNTED)
        steps = pin_plan.plan(wanted, pin_observe.observe(wanted))
        yield from self._part("bpffs", drift_kinds.BPFFS, steps, pin_apply.handlers())

    def _attachments(self) -> List[Dict[str, Any]]:
        """Those to have, maps' first; then those to take off, maps' last."""
        known = attachment_observe.ordered(self.document)
        staying = [entry for entry in known if not entry.get(manifest.LEAVING)]
        return staying + [entry for entry in reversed(known) if entry.get(manifest.LEAVING)]

    def _settings(self) -> Iterator[Step]:
        pin_dir, wanted = self.document["pin_dir"], self.document["settings"]
        if wanted:
            steps = settings_plan.steps(wanted, live.read_settings(pin_dir))
            if program_plan.pin_path(pin_dir, "settings") in self.pinned:
                steps = [settings_plan.step(UNKNOWN, wanted)]
            handlers = {"settings": lambda _step: settings_apply.write_settings(pin_dir, self.state_dir, wanted)}
            yield from self._part("settings", drift_kinds.SETTINGS, steps, handlers)

    def _intercepts(self) -> Iterator[Step]:
        """Last of what is to be there: rules name cgroups that are made for the attachments."""
        pin_dir, wanted = self.document["pin_dir"], intercept_observe.recorded(self.document)
        rules = intercept_observe.to_layout(wanted, self.check)
        observed = intercept_observe.observe(pin_dir, self.document)
        steps = intercept_plan.steps(wanted, rules, observed, intercept_observe.unlisted(pin_dir, rules))
        handlers = {"settings": intercept_apply.write(pin_dir), "enlist": intercept_apply.enlist(pin_dir)}
        yield from self._part("intercepts", drift_kinds.SETTINGS, steps, handlers)

    def _part(self, name: str, kind: str, steps: Plan, handlers: Dict[str, Handler]) -> Iterator[Step]:
        self.done += drift_kinds.name_drift(kind, steps, manifest.ids_valid(self.document))
        self.handlers.update({f"{name} {verb}": handler for verb, handler in handlers.items()})
        for step in steps:
            if self.check and isinstance(step.detail, program_plan.Pinned):
                self.pinned[step.subject] = step.detail
            yield replace(step, verb=f"{name} {step.verb}")
        if steps:
            self.host.refresh()


def restore(state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS) -> Plan:
    """Make the host what its manifest says: after a reboot all of it, else what has drifted.

    A change that was never finished is given up for what was before it.

    :raises NotEnabled: there is no manifest.
    :raises SockredirError: the manifest or an object is damaged, or the kernel refuses; the host is as it was.
    """
    need_manifest(state_dir)
    with journal.change("restore") as done, lock.hold(state_dir, wait_seconds):
        document = manifest.current(state_dir)
        if document is None:
            raise not_enabled(state_dir)
        if document["committed"]:
            with manifest.unchanged_on_failure(state_dir):
                steps = _Restoration(document, Snapshot(state_dir)).run(watch)
        else:
            steps = _go_back(state_dir, watch)
        done(steps)
        return steps


def rollback(state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS) -> Plan:
    """Go back to what the host was before the last change; live connections finish on what they have.

    :raises NotEnabled: there is no manifest.
    :raises SockredirError: there is nothing to go back to, it is damaged, or the kernel refuses; the host is as it was.
    """
    need_manifest(state_dir)
    with journal.change("rollback") as done, lock.hold(state_dir, wait_seconds):
        steps = _go_back(state_dir, watch)
        done(steps)
        return steps


def _go_back(state_dir: str, watch: Optional[Watch]) -> Plan:
    with manifest.unchanged_on_failure(state_dir):
        document = manifest.begin_rollback(state_dir)
        steps = _Restoration(document, Snapshot(state_dir)).run(watch)
        manifest.commit(state_dir)
        return steps


def preview_rollback(state_dir: str) -> Tuple[Plan, Document]:
    """What :func:`rollback` would do, and the manifest that it would leave; what only a run can know is marked so.

    :raises SockredirError: as :func:`rollback`.
    """
    need_manifest(state_dir)
    document = manifest.rollback_target(state_dir)
    return _Restoration(document, Snapshot(state_dir, document)).preview(), document


def need_manifest(state_dir: str) -> None:
    """:raises NotEnabled: there is none."""
    # Asking for what is not there must not make a state directory for the lock.
    if not os.path.lexists(os.path.join(state_dir, manifest.CURRENT)):
        raise not_enabled(state_dir)


def not_enabled(state_dir: str) -> NotEnabled:
    """The error of who needs a manifest if there is none."""
    return NotEnabled(f"not enabled on this host: there is no manifest in {state_dir}", "run the role")
