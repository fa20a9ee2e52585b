# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens for TCP in this network namespace, from /proc/net (proc(5)); nobody is connected to."""

from __future__ import annotations

import ipaddress
import struct
from typing import Iterable, Set, Tuple

_LISTEN = "0A"
_ANY = ("0.0.0.0", "::")


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
    ip = ipaddress.ip_address(raw)
    return str(getattr(ip, "ipv4_mapped", None) or ip), int(port, 16)


def is_heard(end: str, known: Set[Tuple[str, int]]) -> bool:
    """Whether somebody listens at ``ADDRESS:PORT``: there, at any address of the family, or dual-stack."""
    address, _colon, port = end.rpartition(":")
    own = address.strip("[]")
    anywhere = _ANY[1:] if ":" in own else _ANY
    return any((one, int(port)) in known for one in (own, *anywhere))
