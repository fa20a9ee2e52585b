# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory unread redirected data may hold."""

from __future__ import annotations

import os
import re

from ..errors import SockredirError
from .layout import LayoutError
from .settings_value import DEFAULT_BUDGET, MIN_BUDGET

TCP_MEM = "/proc/sys/net/ipv4/tcp_mem"
_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS.update({_letter: 1024**_power, _letter + "B": 1024**_power, _letter + "IB": 1024**_power})


def size(text: str, option: str) -> int:
    """Bytes of ``4096``, ``64k``, ``256 MiB`` ...; every unit is a power of 1024.

    :raises SockredirError: it is not a size above zero.
    """
    match = re.match(r"\s*(\d+)\s*([A-Za-z]*)\s*$", str(text))
    factor = _UNITS.get(match.group(2).upper()) if match else None
    if not match or factor is None or int(match.group(1)) == 0:
        raise SockredirError(f"{option}: {text!r} is not a size", "give bytes or a unit, such as 256 MiB")
    return int(match.group(1)) * factor


def default_budget() -> int:
    """The budget, in bytes, if the operator names none; see :func:`from_tcp_mem`."""
    try:
        with open(TCP_MEM, encoding="ascii") as figures:
            return from_tcp_mem(figures.read(), os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return DEFAULT_BUDGET


def from_tcp_mem(tcp_mem: str, page_size: int) -> int:
    """Bytes: 256 MiB, or half of the first figure of net.ipv4.tcp_mem if that is less.

    Past that figure the kernel's TCP as a whole leaves the state without memory pressure
    (tcp(7), tcp_mem), so redirected bytes must stay well under it.

    :param tcp_mem: str, text of /proc/sys/net/ipv4/tcp_mem (pages).
    :param page_size: int, bytes.
    """
    try:
        pages = int(tcp_mem.split()[0])
    except (IndexError, ValueError) as error:
        raise LayoutError(f"net.ipv4.tcp_mem is not three numbers: {tcp_mem!r}") from error
    return max(MIN_BUDGET, min(DEFAULT_BUDGET, pages * page_size // 2))
