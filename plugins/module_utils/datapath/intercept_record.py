# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a trace is told of interception: ``intercept_ring`` and ``intercept_trace`` of ``bpf/intercept.h``."""

from __future__ import annotations

import struct
from typing import Dict, NamedTuple

from . import layout
from .intercept import END, End, Event

RECORD = struct.Struct("=QII16sII" + 3 * END.format.lstrip("=") + "I")
#: Elements of ``intercept_trace``.
UNTIL, LOST = 0, 1
#: A program's socket has no address before it connects.
_NONE_YET = "*"


class Record(NamedTuple):
    """One event.

    :ivar time: CLOCK_MONOTONIC, nanoseconds.
    :ivar pid: of the thread that ran; at the proxy's side often the client's or a kernel thread.
    :ivar slot: of the rule; 0: none.
    :ivar event: its number; a later version's has no name here.
    :ivar client: with a port of 0 if it has no address yet.
    :ivar to: where the connection goes.
    :ivar asked: where the program wanted to go.
    """

    time: int
    cpu: int
    pid: int
    comm: str
    slot: int
    event: int
    client: End
    to: End
    asked: End


def decode(raw: bytes) -> Record:
    """A record of the ring (which may pad it).

    :raises LayoutError: it is too short.
    """
    if len(raw) < RECORD.size:
        raise layout.LayoutError(f"an event of interception has {len(raw)} bytes, this version {RECORD.size}")
    time, cpu, pid, comm, slot, event, *ends, _zero = RECORD.unpack_from(raw)
    client, to, asked = (End(layout.decode_address(ends[at]), ends[at + 1]) for at in (0, 3, 6))
    return Record(time, cpu, pid, layout.decode_comm(comm), slot, event, client, to, asked)


def line(record: Record, names: Dict[int, str]) -> str:
    """The line of ``sockredirctl trace``.

    :param names: slot -> name of its rule.
    """
    client = record.client.text if record.client.port else _NONE_YET
    asked = f" asked={record.asked.text}" if record.asked != record.to else ""
    return (
        f"{layout.moment(record.comm, record.pid, record.cpu, record.time)}: "
        f"{_event(record.event)} rule={_rule(record.slot, names)} {client} --> {record.to.text}{asked}"
    )


def _event(number: int) -> str:
    try:
        return Event(number).label
    except ValueError:
        return f"event{number}"


def _rule(slot: int, names: Dict[int, str]) -> str:
    """A rule that is being written is not in the manifest yet."""
    return names.get(slot, f"#{slot}") if slot else "-"
