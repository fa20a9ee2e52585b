# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in the maps of ``bpf/learn.bpf.c``; mirrors ``bpf/learn.h``."""

from __future__ import annotations

import struct
from typing import NamedTuple, Tuple

SIZES = 24
#: In the order of ``enum learn_sign``.
SIGNS = (
    "spliced",
    "waitall",
    "low_water",
    "urgent",
    "zero_copy",
    "kernel_tls",
    "interrupted",
    "two_slept",
    "fionread",
    "ring_waitall",
    "peek_offset",
    "timestamps",
)
WATCHED = 0

_KEY = struct.Struct("=Q16sHBB4x")
_NUMBERS = 10
_COUNTS = struct.Struct(f"={_NUMBERS}Q{SIZES}I{len(SIGNS)}I")
_SOCKET_END = struct.Struct("=QII3QI4x")
_ACTIVITY = struct.Struct("=QQ")

KEY_BYTES = _KEY.size
COUNTS_BYTES = _COUNTS.size
SOCKET_BYTES = _KEY.size + _COUNTS.size + _SOCKET_END.size


class Key(NamedTuple):
    """:ivar cgroup: int, the id of the cgroup that the program runs in.
    :ivar program: str, the name of the process, at most 15 characters.
    :ivar port: int, the server's.
    :ivar server: bool, whether these sockets are the server's end.
    :ivar local: bool, whether both ends are on this host.
    """

    cgroup: int
    program: str
    port: int
    server: bool
    local: bool


class Counts(NamedTuple):
    """:ivar nanoseconds: int, the life of all these connections together, from the first message seen.
    :ivar answers: int, messages sent next after something was received.
    :ivar files: int, messages sent by ``sendfile``.
    :ivar reply_ns: int, time from a message sent until the last that was received before the next, for some of these.
    :ivar replies: int, for how many.
    :ivar sizes: sent messages by the binary logarithm of their bytes.
    :ivar signs: how often each of :data:`SIGNS` was seen.
    """

    connections: int
    nanoseconds: int
    sent_bytes: int
    sent_messages: int
    received_bytes: int
    received_messages: int
    answers: int
    files: int
    reply_ns: int
    replies: int
    sizes: Tuple[int, ...]
    signs: Tuple[int, ...]

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        mine_all, more_all = self._asdict(), other._asdict()
        numbers = [mine_all[name] + more_all[name] for name in self._fields[:_NUMBERS]]
        sizes = tuple(mine + more for mine, more in zip(self.sizes, other.sizes))
        signs = tuple(mine + more for mine, more in zip(self.signs, other.signs))
        return Counts._make([*numbers, sizes, signs])


NOTHING = Counts._make([*[0] * _NUMBERS, (0,) * SIZES, (0,) * len(SIGNS)])


class Socket(NamedTuple):
    """:ivar opened_ns: int, on the monotonic clock.
    :ivar watched: bool, whether its program is one of those that were asked for.
    """

    key: Key
    counts: Counts
    opened_ns: int
    watched: bool


def decode_key(raw: bytes) -> Key:
    cgroup, program, port, server, local = _KEY.unpack(raw)
    return Key(cgroup, program.split(b"\0")[0].decode("utf-8", "replace"), port, bool(server), bool(local))


def decode_counts(raw: bytes) -> Counts:
    numbers = _COUNTS.unpack(raw)
    sizes, signs = numbers[_NUMBERS : _NUMBERS + SIZES], numbers[_NUMBERS + SIZES :]
    return Counts._make([*numbers[:_NUMBERS], sizes, signs])


def decode_socket(raw: bytes) -> Socket:
    key, counts = decode_key(raw[:KEY_BYTES]), decode_counts(raw[KEY_BYTES : KEY_BYTES + COUNTS_BYTES])
    opened, kind, *_turns = _SOCKET_END.unpack(raw[KEY_BYTES + COUNTS_BYTES : SOCKET_BYTES])
    return Socket(key, counts, opened, kind == WATCHED)


def decode_ticks(raw: bytes) -> int:
    """Ticks of the kernel's clock with a message."""
    return _ACTIVITY.unpack(raw)[1]
