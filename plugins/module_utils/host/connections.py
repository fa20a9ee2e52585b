# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Established TCP connections of this network namespace, from sock_diag(7)."""

from __future__ import annotations

import socket
import struct
from typing import Iterator, NamedTuple, Tuple

from . import sockets
from .listeners import plain

_ESTABLISHED = 1 << 1
# struct inet_diag_msg: ports, addresses, the device that it is bound to; then its user and inode
_SOCKID = struct.Struct("!4xHH16s16s")
_DEVICE = struct.Struct("=40xI")
_OWNER = struct.Struct("=64xII")


class Connection(NamedTuple):
    """:ivar local: address and port; of a v4-mapped one the IPv4 address.
    :ivar device: number of the device that its socket is bound to; 0: none.
    :ivar user: who made the socket.
    """

    local: Tuple[str, int]
    remote: Tuple[str, int]
    device: int
    user: int
    inode: int


def established() -> Iterator[Connection]:
    """Both ends of each connection, if both are here."""
    return map(parsed, sockets.dump_here(_ESTABLISHED))


def parsed(message: bytes) -> Connection:
    """What a ``struct inet_diag_msg`` says."""
    size = 4 if message[0] == socket.AF_INET else 16
    local_port, remote_port, local, remote = _SOCKID.unpack_from(message)
    user, inode = _OWNER.unpack_from(message)
    return Connection(
        (plain(local[:size]), local_port),
        (plain(remote[:size]), remote_port),
        _DEVICE.unpack_from(message)[0],
        user,
        inode,
    )
