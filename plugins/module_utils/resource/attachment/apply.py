# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of an attachment's plan, each with its undo."""

from __future__ import annotations

import os
from typing import Callable, Dict, List, Optional

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...errors import SockredirError
from ...host import cgroups, mounts, systemd
from ...kernel import attachments, libbpf
from ...kernel.hooks import KINDS
from ...state import manifest
from ..snapshot import Snapshot
from . import plan as planning
from .observe import observe
from .plan import Record, Wanted


def handlers(wanted: Wanted, state_dir: str, record_changes: bool = True) -> Dict[str, Handler]:
    """The handler of each verb that :func:`.plan.plan` uses.

    :param record_changes: whether each change is written into the manifest at once.
    """
    own = _Handlers(wanted, state_dir, record_changes)
    return {
        "create_cgroup": own.create_cgroup,
        "start_slice": own.start_slice,
        "remove_cgroup": own.remove_cgroup,
        "attach_link": own.attach_link,
        "attach_legacy": own.attach_legacy,
        "replace_link": own.replace_link,
        "replace_legacy": own.replace_legacy,
        "detach_link": own.detach_link,
        "detach_legacy": own.detach_legacy,
        "unpin_link": own.unpin_link,
        "record": own.record,
    }


class _Handlers:
    def __init__(self, wanted: Wanted, state_dir: str, record_changes: bool) -> None:
        self.wanted = wanted
        self.record_changes = record_changes
        self.state_dir = state_dir
        self.kind, self.target, self.pin = wanted.kind, wanted.target, wanted.link_pin

    def create_cgroup(self, step: Step) -> Undo:
        # Recorded as ours before it is there, so that a run killed in between leaves nothing that is not recorded.
        self._own(step.subject, True)
        try:
            cgroups.create(step.subject)
        except SockredirError:
            self._own(step.subject, False)
            raise
        return lambda: self._give_up(step.subject)

    def _give_up(self, path: str) -> None:
        cgroups.remove([path])
        self._own(path, False)

    def _own(self, path: str, ours: bool) -> None:
        def change(document: manifest.Manifest) -> None:
            kept = [each for each in document.get("cgroups", []) if each != path]
            document["cgroups"] = sorted([*kept, path]) if ours else kept

        if self.record_changes:
            manifest.edit(self.state_dir, change)

    def start_slice(self, step: Step) -> Undo:
        systemd.start(step.subject)

        def undo() -> None:
            systemd.stop_idle(step.subject)

        return undo

    def remove_cgroup(self, step: Step) -> Undo:
        if cgroups.remove([step.subject]):
            self._own(step.subject, False)
        stopped = _forget_slice(step.subject)
        return lambda: self._restore(step.subject, stopped)

    def _restore(self, path: str, slice_name: Optional[str]) -> None:
        if slice_name:
            systemd.start(slice_name)
        self._own(path, True)
        cgroups.create(path)

    def attach_link(self, step: Step) -> Undo:
        attachments.attach_link(self.target, step.need(planning.Change).id(), self.pin)
        return self._drop_link

    def _drop_link(self) -> None:
        pinned = attachments.pinned_link(self.kind, self.pin)
        if pinned:
            attachments.detach_link(pinned.link_id)
        os.unlink(self.pin)

    def attach_legacy(self, step: Step) -> Undo:
        number = step.need(planning.Change).id()
        attachments.attach_legacy(self.target, number)
        return lambda: attachments.detach_legacy(self.target, number)

    def replace_link(self, step: Step) -> Undo:
        new, old = step.need(planning.Change).ids()
        held = libbpf.program_by_id(old)
        attachments.update_link(self.pin, new, old)
        return _holding(held, lambda: attachments.update_link(self.pin, old, new))

    def replace_legacy(self, step: Step) -> Undo:
        new, old = step.need(planning.Change).ids()
        held = libbpf.program_by_id(old)
        attachments.attach_legacy(self.target, new, old)
        return _holding(held, lambda: attachments.attach_legacy(self.target, old, new))

    def detach_link(self, step: Step) -> Undo:
        change = step.need(planning.Change)
        number, link_pin = change.id(), change.link_pin
        held = libbpf.program_by_id(number)
        if change.link_id is not None:
            attachments.detach_link(change.link_id)
        if link_pin is None:  # nobody's: there is not a pin to bring back
            return None
        os.unlink(link_pin)
        return _holding(held, lambda: attachments.attach_link(self.target, number, link_pin))

    def detach_legacy(self, step: Step) -> Undo:
        number = step.need(planning.Change).id()
        held = libbpf.program_by_id(number)
        attachments.detach_legacy(self.target, number)
        return _holding(held, lambda: attachments.attach_legacy(self.target, number))

    def unpin_link(self, step: Step) -> Undo:
        held = libbpf.get(step.subject)
        os.unlink(step.subject)
        return _holding(held, lambda: libbpf.pin(held, step.subject))

    def record(self, _step: Step) -> Undo:
        if not self.record_changes:
            return None
        entry = (
            planning.record(self.wanted, observe(self.wanted, Snapshot(self.state_dir)))
            if self.wanted.present
            else None
        )
        before = [each for each in (manifest.known(self.state_dir) or {}).get("attachments", []) if self._is_it(each)]
        self._enter([entry] if entry else [])
        return lambda: self._enter(before)

    def _is_it(self, entry: Record) -> bool:
        return (entry.get("program"), entry.get(self.kind)) == (self.wanted.program, self.target)

    def _enter(self, entries: List[Record]) -> None:
        def change(document: manifest.Manifest) -> None:
            others = [each for each in document["attachments"] if not self._is_it(each)]
            # Sorted, so that equal attachments make an equal manifest.
            document["attachments"] = sorted([*others, *entries], key=_record_order)

        manifest.edit(self.state_dir, change)


def _record_order(entry: Record) -> List[str]:
    return [str(entry.get(key)) for key in ("program", *KINDS)]


def _holding(held: libbpf.Fd, undo: Callable[[], None]) -> Callable[[], None]:
    """An undo that keeps a program or link alive until it is run or no longer wanted."""

    def run() -> None:
        undo()
        held.close()

    return run


def _forget_slice(path: str) -> Optional[str]:
    """Have systemd stop the slice that a cgroup was; its name, or None if there is none, or something is in it."""
    if os.path.isdir(path) or not systemd.booted():
        return None
    name = systemd.slice_of(cgroups.relative(path, mounts.read()))
    return name if name and systemd.stop_idle(name) else None
