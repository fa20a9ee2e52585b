# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of the services' plan, each with its undo."""

from __future__ import annotations

import os
from typing import Dict, List, Set

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...errors import SockredirError
from ...host import cgroups, mounts, systemd
from .plan import Wanted, is_unit_file


class Changes:
    """The handlers of the steps, and what the undo of unit files needs besides."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._moved: Set[str] = set()
        self._restarted: List[str] = []
        self._reloaded = False
        self._guarded = False

    def handlers(self) -> Dict[str, Handler]:
        """By verb."""
        return {"reload": self._reload, "start_slice": self._start_slice, "restart": self._restart}

    def guard(self, path: str, undo: Undo) -> Undo:
        """The undo of a change to a file; call it for each as it is changed.

        Undos run last first. So that of the first unit file, which runs when all of them are back, has systemd read
        them, and restarts the services that had been restarted on the word of the others.
        """
        if undo is None or not is_unit_file(path, self._wanted.unit_dir):
            return undo
        if os.path.basename(path) in systemd.DROP_INS:
            self._moved.add(os.path.basename(os.path.dirname(path))[: -len(".d")])
        if self._guarded:
            return undo
        self._guarded = True
        put_back = undo

        def back() -> None:
            put_back()
            if self._reloaded:
                systemd.reload()
            systemd.restart([name for name in self._restarted if name in self._moved])

        return back

    def _reload(self, _step: Step) -> Undo:
        self._reloaded = True
        systemd.reload()
        return None

    def _start_slice(self, step: Step) -> Undo:
        existed = os.path.isdir(self._path())
        systemd.start(step.subject)
        return None if existed else lambda: self._stop_if_idle(step.subject)

    def _path(self) -> str:
        return cgroups.resolve(self._wanted.cgroup, mounts.read())

    def _stop_if_idle(self, slice_name: str) -> None:
        if cgroups.removable([self._path()]):
            systemd.stop_idle(slice_name)

    def _restart(self, step: Step) -> Undo:
        self._restarted.append(step.subject)  # one that fails has been stopped, too
        try:
            systemd.restart([step.subject])
        except SockredirError as error:
            raise SockredirError(
                f"services: {step.subject} cannot be restarted: {error.message}",
                f"find out why with journalctl -u {step.subject}",
                error.detail,
            ) from error
        return None
