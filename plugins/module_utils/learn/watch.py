# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watch TCP for a while, with pauses if watching all the time would cost too much."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from typing import Dict, Iterator, NamedTuple, Optional

from ..errors import SockredirError
from . import connections, layout, programs

_MACHINES = ("x86_64", "aarch64")
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLOCK_MONOTONIC_COARSE = 6  # ticks as the kernel does

#: The share of all CPUs that watching may take.
SHARE = 0.03
#: Nanoseconds of CPU that watching takes for a message sent and received, estimated high (docs/learn.md).
MESSAGE_NS = 800
#: Seconds after which the number of messages is looked at again.
_PERIOD = 0.5
_LEAST_SHARE = 0.02


class Seen(NamedTuple):
    """What a watch has seen.

    :ivar counts: by whose they are.
    :ivar living: how many of the connections counted at a server's end are still there, by port.
    :ivar active: seconds in which there was traffic between programs of this host, by server port.
    :ivar seconds: float, how long it took.
    :ivar share: float, of this time, the part in which messages were watched.
    :ivar lost: int, sockets for which the maps had no room.
    :ivar sees_fionread: bool, whether calls of FIONREAD would have been seen.
    :ivar sees_ring: bool, whether sends by io_uring with MSG_WAITALL would have been seen.
    """

    counts: Dict[layout.Key, layout.Counts]
    living: Dict[int, int]
    active: Dict[int, float]
    seconds: float
    share: float
    lost: int
    sees_fionread: bool
    sees_ring: bool


class Watched(NamedTuple):
    """:ivar seconds: float, in all.
    :ivar looking: float, seconds in which messages were looked at.
    """

    seconds: float
    watching: float


def watch(data: bytes, seconds: float, cgroup: Optional[str]) -> Seen:
    """Watch for so long, or until a signal asks to end.

    :param data: bytes, the object.
    :param cgroup: str, directory of the cgroup whose programs to watch; None for all of the host.
    :raises SockredirError: the kernel does not take the programs.
    """
    if os.uname().machine not in _MACHINES:
        raise SockredirError(
            f"learn does not know the system calls of {os.uname().machine}", f"it knows those of {', '.join(_MACHINES)}"
        )
    with _endings_blocked(), programs.held(data, cgroup) as held:
        _note_listeners(held)
        looked = _look(held, seconds)
        return _seen(held, looked)


def _note_listeners(held: programs.Held) -> None:
    with held.map("listened") as listened:
        for port in connections.listening():
            listened.update(struct.pack("=H", port), b"\1")


def share_of_time(messages_per_second: float, cpus: int) -> float:
    """For which share of the time messages may be watched. Pure."""
    cost = messages_per_second * MESSAGE_NS / 1e9
    return 1.0 if cost <= SHARE * cpus else max(SHARE * cpus / cost, _LEAST_SHARE)


def _look(held: programs.Held, seconds: float) -> Watched:
    """Watch messages; with pauses only if there are very many."""
    begin, watching, share, windows, ended = time.monotonic(), 0.0, 1.0, 0, False
    end = begin + seconds
    while not ended and time.monotonic() < end:
        windows += 1
        _open_window(held, windows)
        from_now, before = time.monotonic(), _messages(held)
        ended = _wait(_PERIOD * share, end)
        looked = time.monotonic() - from_now
        watching += looked
        share = share_of_time((_messages(held) - before) / looked, os.cpu_count() or 1)
        if share < 1 and not ended:
            held.pause()
            ended = _wait(_PERIOD * (1 - share), end)
    return Watched(max(time.monotonic() - begin, 1e-9), watching)


def _open_window(held: programs.Held, number: int) -> None:
    if not held.watching:
        with held.map("window") as window:
            window.update(bytes(4), struct.pack("=I", number))
        held.resume()


def _messages(held: programs.Held) -> int:
    with held.map("messages") as messages:
        value = messages.lookup(bytes(4)) or b""
    return sum(number for (number,) in struct.iter_unpack("=Q", value))


@contextlib.contextmanager
def _endings_blocked() -> Iterator[None]:
    """Signals that ask to end are blocked, and taken by :func:`_wait`."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _wait(seconds: float, end: float) -> bool:
    """Sleep, at most until then; whether a signal asks to end."""
    return signal.sigtimedwait(_ENDINGS, max(0.0, min(seconds, end - time.monotonic()))) is not None


def _seen(held: programs.Held, looked: Watched) -> Seen:
    """Connections that have ended, and those that live on."""
    with held.map("totals") as totals, held.map("sockets") as sockets, held.map("activity") as activity:
        counts = {layout.decode_key(key): layout.decode_counts(raw) for key, raw in totals.items()}
        records = [layout.decode_socket(raw) for _address, raw in sockets.items()]
        ticks = {struct.unpack("=H", port)[0]: layout.decode_ticks(raw) for port, raw in activity.items()}
    living: Dict[int, int] = {}
    now = time.monotonic_ns()
    for record in records:
        if record.watched:
            more = record.counts._replace(nanoseconds=now - record.opened_ns)
            counts[record.key] = counts.get(record.key, layout.NOTHING).plus(more)
            living[record.key.port] = living.get(record.key.port, 0) + record.key.server
    tick = time.clock_getres(_CLOCK_MONOTONIC_COARSE)
    active = {port: count * tick for port, count in ticks.items()}
    share = min(1.0, looked.watching / looked.seconds)
    return Seen(counts, living, active, looked.seconds, share, _lost(held), held.sees_fionread, held.sees_ring)


def _lost(held: programs.Held) -> int:
    with held.map("lost") as lost:
        return sum(int.from_bytes(value, "little") for _key, value in lost.items())
