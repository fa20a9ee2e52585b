# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of settings in the midst of a program's work, made in the kernel by ``turns.bpf.c``: none comes too late."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Iterator, List

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout, live, reasons, settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from support.datapath import Redirection, compiled, settings_of

from .ways import Way

_SOURCE = Path(__file__).resolve().with_name("turns.bpf.c")
_TURN = struct.Struct(f"=QQQ{3 * layout.SETTINGS_SIZE}s")
_PLAN = struct.Struct(f"=QQQ{_TURN.size}s{_TURN.size}s")
# Whatever happens on a connection shows in one of these.
_SIGNS = [
    reason
    for reason, (unit, _text) in reasons.DESCRIPTIONS.items()
    if reason and unit in (reasons.Unit.MESSAGE, reasons.Unit.SOCKET)
]
_NEVER = (1 << 64) - 1
_NO_TURN = _TURN.pack(_NEVER, 0, 0, b"")
_KEY = bytes(4)


def _bits(found: List[reasons.Reason]) -> int:
    return sum(1 << reason for reason in found)


class Turns:
    """Makes the changes of a way while the block runs.

    The first is made as soon as so many messages have been redirected, each further one as soon as the one before it
    shows; in both cases before the thread that brings it about, or learns of it, returns from its system call.

    :ivar made: int, how many were made; 0 if nothing has shown after the first.
    """

    def __init__(self, redirection: Redirection, way: Way, after: int) -> None:
        self.made = 0
        self._redirection, self._way, self._after = redirection, way, after
        self._began = self._count(_SIGNS)
        self._shown: List[int] = []
        self._loaded = contextlib.ExitStack()

    def account(self) -> str:
        """How far the work was at each change, and in all."""
        shown = ", ".join(str(signs - self._began) for signs in self._shown) or "none"
        return f"changes after {shown} of {self._count(_SIGNS) - self._began} messages and sockets"

    def __enter__(self) -> Turns:
        if self._way.turns:
            self._plan = self._loaded.enter_context(_attached(self._redirection, self._value()))
        return self

    def __exit__(self, *_exception) -> None:
        with self._loaded:
            turns = _PLAN.unpack(self._plan.lookup(_KEY))[3:] if self._way.turns else ()
        self._shown = [shown for _goal, _towards, shown, _steps in map(_TURN.unpack, turns) if shown]
        if self._shown and self._shown[0] < self._count(_SIGNS):
            self.made = len(self._shown)

    def _count(self, found: List[reasons.Reason]) -> int:
        return self._redirection.events(*(reason.label for reason in found))

    def _value(self) -> bytes:
        cgroup = os.stat(self._redirection.cgroup).st_ino
        turns = [*self._turns(), _NO_TURN]
        return _PLAN.pack(cgroup, _bits(_SIGNS), libbpf.num_possible_cpus(), *turns[:2])

    def _turns(self) -> Iterator[bytes]:
        """When the second one is due shows when the first is made."""
        goal, towards = self._count([reasons.Reason.REDIRECTED]) + self._after, [reasons.Reason.REDIRECTED]
        written = live.read_settings(str(self._redirection.pin_dir)).raw
        for changed in self._way.turns:
            steps = settings_value.change_steps(written, settings_of(**changed))
            yield _TURN.pack(goal, _bits(towards), 0, b"".join(steps))
            written, goal, towards = steps[-1], _NEVER, _SIGNS


@contextlib.contextmanager
def _attached(redirection: Redirection, plan: bytes) -> Iterator[libbpf.Map]:
    """The program, attached for the length of the block; the map with its plan."""
    with contextlib.ExitStack() as stack:
        turns = stack.enter_context(libbpf.Object(compiled(_SOURCE), "turns"))
        maps = {found.name: found for found in turns.maps()}
        for name in ("settings", "counters"):
            maps[name].reuse(stack.enter_context(libbpf.get(str(redirection.pin_dir / name))))
        turns.load()
        plans = stack.enter_context(libbpf.Map(libbpf.Fd(os.dup(maps["plans"].fileno()))))
        plans.update(_KEY, plan)
        stack.enter_context(libbpf.open_tracepoint(turns.programs()[0]))
        yield plans
