# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens for TCP in this network namespace, from proc(5) and sock_diag(7), without connecting."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from . import sockets

_LISTEN = "0A"
_ANY = ("0.0.0.0", "::")
# struct inet_diag_msg: its port and its address
_PORT = struct.Struct("!4xH")
_ADDRESS_AT = 8


class Listener(NamedTuple):
    """A listening socket.

    :ivar cgroup: int, the id of the cgroup that it was made in; None if the kernel does not say.
    :ivar cookie: int, the kernel's own name of it; ``inode`` is what proc(5) calls it.
    """

    address: str
    port: int
    cgroup: Optional[int]
    cookie: int = 0
    inode: int = 0


def with_cgroups() -> List[Listener]:
    """Each listening socket of this network namespace."""
    return [_listener(message) for message in sockets.dump_here(1 << int(_LISTEN, 16))]


def _listener(message: bytes) -> Listener:
    size = 4 if message[0] == socket.AF_INET else 16
    address = plain(message[_ADDRESS_AT : _ADDRESS_AT + size])
    return Listener(address, _PORT.unpack_from(message)[0], sockets.cgroup_of(message), *sockets.names_of(message))


def reached(end: str, known: Sequence[Listener]) -> List[Listener]:
    """Those that a connection to ``ADDRESS:PORT`` can reach: one that listens there is before one for any address."""
    address, anywhere, port = _wanted(end)
    there = [each for each in known if each.port == port]
    return [each for each in there if each.address == address] or [each for each in there if each.address in anywhere]


def listeners() -> Set[Tuple[str, int]]:
    """Address and port of each; of a v4-mapped one the IPv4 address."""
    found: Set[Tuple[str, int]] = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                found |= parse(lines)
        except FileNotFoundError:  # IPv6 is switched off
            continue
    return found


def parse(lines: Iterable[str]) -> Set[Tuple[str, int]]:
    """What a table of /proc/net says."""
    words = [line.split() for line in lines]
    return {_end(line[1]) for line in words if len(line) > 3 and line[3] == _LISTEN}


def _end(text: str) -> Tuple[str, int]:
    """Each 32 bits of the address are written as a number of this host's byte order."""
    address, port = text.split(":")
    raw = b"".join(struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8))
    return plain(raw), int(port, 16)


def plain(raw: bytes) -> str:
    """An address as text, a v4-mapped one as IPv4."""
    ip = ipaddress.ip_address(raw)
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def is_heard(end: str, known: Set[Tuple[str, int]]) -> bool:
    """Whether somebody listens at ``ADDRESS:PORT``: there, at any address of the family, or dual-stack."""
    address, anywhere, port = _wanted(end)
    return any((one, port) in known for one in (address, *anywhere))


def _wanted(end: str) -> Tuple[str, Tuple[str, ...], int]:
    """Its address, the addresses of listeners for any, and its port."""
    address, _colon, port = end.rpartition(":")
    own = address.strip("[]")
    return own, _ANY[1:] if ":" in own else _ANY, int(port)
