# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why the programs did what they did: ``enum sockredir_reason`` of ``bpf/sockredir.h``, with a line for each."""

from __future__ import annotations

import enum


class Unit(str, enum.Enum):
    """What a reason counts."""

    MESSAGE = "message"
    SOCKET = "socket"
    FLOW = "flow"
    EVENT = "event"


class Reason(enum.IntEnum):
    """Why something happened: index into ``counters``, state of a direction."""

    UNDECIDED = 0
    REDIRECTED = 1
    WOULD_REDIRECT = 2
    NO_PEER = 3
    NO_FLOW = 4
    SENT_BEFORE = 5
    OVER_BUDGET = 6
    DEMOTED = 7
    DRAINED = 8
    ULP = 9
    REFUSED = 10
    SOCKET_ADDED = 11
    SOCKET_CLOSED = 12
    SOCKET_LEFT = 13
    SKIP_REMOTE = 14
    SKIP_POLICY = 15
    SKIP_MODE = 16
    SKIP_KIND = 17
    SKIP_ALONE = 18
    SKIP_FULL = 19
    SKIP_FAILED = 20
    FLOW_OPENED = 21
    FLOW_CLOSED = 22
    RECOUNTED = 23
    EVENT_LOST = 24
    STALE_FLOW = 25
    AHEAD = 26
    WAITED = 27
    BEHIND = 28
    CUT = 29
    OBSERVED = 30
    SKIP_VAIN = 31

    @property
    def label(self) -> str:
        """The name in reports and metrics, as ``redirected``."""
        return self.name.lower()


DESCRIPTIONS = {
    Reason.UNDECIDED: (Unit.MESSAGE, "before the first message of a direction; counts nothing"),
    Reason.REDIRECTED: (Unit.MESSAGE, "handed to the receiving socket, past the TCP/IP stack"),
    Reason.WOULD_REDIRECT: (Unit.MESSAGE, "segments with data of connections that ended in mode observe"),
    Reason.NO_PEER: (Unit.MESSAGE, "by TCP: the other end's socket is not in the map"),
    Reason.NO_FLOW: (Unit.MESSAGE, "by TCP: the socket's flow has no record"),
    Reason.SENT_BEFORE: (Unit.MESSAGE, "by TCP: earlier bytes went by TCP, redirected ones would overtake them"),
    Reason.OVER_BUDGET: (Unit.MESSAGE, "by TCP: too much is unread on the whole host (memory budget)"),
    Reason.DEMOTED: (Unit.MESSAGE, "by TCP: one-way run of small messages, where TCP is faster"),
    Reason.DRAINED: (Unit.MESSAGE, "by TCP: the mode is drain or observe, or the settings are invalid"),
    Reason.ULP: (Unit.MESSAGE, "by TCP: another protocol (kTLS) is layered on the socket"),
    Reason.REFUSED: (Unit.MESSAGE, "by TCP: the kernel refused the redirect"),
    Reason.SOCKET_ADDED: (Unit.SOCKET, "put in the map when established"),
    Reason.SOCKET_CLOSED: (Unit.SOCKET, "closed while in the map"),
    Reason.SOCKET_LEFT: (Unit.SOCKET, "left the map alive: plain TCP from then on, at no cost"),
    Reason.SKIP_REMOTE: (Unit.SOCKET, "not in the map: its two ends are not both local"),
    Reason.SKIP_POLICY: (Unit.SOCKET, "not in the map: the server port is excluded or not included"),
    Reason.SKIP_MODE: (Unit.SOCKET, "not in the map: mode drain, or settings missing, changing or invalid"),
    Reason.SKIP_KIND: (Unit.SOCKET, "not in the map: the kernel's own, MPTCP, bound to a device, or in need of TCP"),
    Reason.SKIP_ALONE: (Unit.SOCKET, "not in the map: accepted from a client that is not in it"),
    Reason.SKIP_FULL: (Unit.SOCKET, "not in the map: the map is full"),
    Reason.SKIP_FAILED: (Unit.SOCKET, "not in the map: the kernel refused the socket"),
    Reason.FLOW_OPENED: (Unit.FLOW, "connections that got a record"),
    Reason.FLOW_CLOSED: (Unit.FLOW, "connections whose record is gone again"),
    Reason.RECOUNTED: (Unit.EVENT, "the budget was recounted; bytes: found to be free"),
    Reason.EVENT_LOST: (Unit.EVENT, "trace event lost, the ring was full"),
    Reason.STALE_FLOW: (Unit.EVENT, "records whose sockets went away while no program was attached"),
    Reason.AHEAD: (Unit.MESSAGE, "by TCP: the reader is a window behind"),
    Reason.WAITED: (Unit.EVENT, "messages whose writer waited some microseconds for the reader"),
    Reason.BEHIND: (Unit.MESSAGE, "by TCP: earlier messages went by TCP and have not arrived yet"),
    Reason.CUT: (Unit.EVENT, "segments whose beginning had already arrived; bytes: cut off"),
    Reason.OBSERVED: (Unit.SOCKET, "not in the map: mode observe; counted when it ends"),
    Reason.SKIP_VAIN: (Unit.SOCKET, "not in the map: connections to this port gain nothing from redirection"),
}


def reason_label(value: int) -> str:
    """Label of a reason, or ``reason_N`` for one that this version does not know."""
    try:
        return Reason(value).label
    except ValueError:
        return f"reason_{value}"
