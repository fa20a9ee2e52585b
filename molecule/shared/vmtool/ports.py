# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choice of the loopback port that leads to a machine's sshd."""

from __future__ import annotations

import hashlib
import re
import socket
from typing import Callable, Iterator, Mapping, Tuple

from .errors import VmError

DEFAULT_RANGE = (22000, 22999)


def port_range(environ: Mapping[str, str]) -> Tuple[int, int]:
    """First and last port to choose from; raises VmError where SOCKREDIR_VM_PORTS is not FROM-TO."""
    text = environ.get("SOCKREDIR_VM_PORTS", "")
    if not text:
        return DEFAULT_RANGE
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text.strip())
    if match:
        low, high = int(match.group(1)), int(match.group(2))
        if 1024 <= low <= high <= 65535:
            return low, high
    raise VmError(f"SOCKREDIR_VM_PORTS={text!r} is not a range of ports: write FROM-TO within 1024-65535")


def candidates(identity: str, low: int, high: int) -> Iterator[int]:
    """Every port of the range once, from the one that belongs to this identity on.

    The same machine of the same checkout so gets the same port whenever that is free.
    """
    size = high - low + 1
    start = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") % size
    return (low + (start + step) % size for step in range(size))


def is_free(port: int) -> bool:
    """Whether this port can be listened on at 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As qemu does: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(identity: str, low: int, high: int, free: Callable[[int], bool] = is_free) -> Iterator[int]:
    """The free ports of the range in order of choice; raises VmError where they end.

    More than one, because another process may take a port between this look and qemu's bind.
    """
    yield from (port for port in candidates(identity, low, high) if free(port))
    raise VmError(f"no free port in {low}-{high} on 127.0.0.1: set SOCKREDIR_VM_PORTS=FROM-TO to another range")
