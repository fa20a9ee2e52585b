# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory unread redirected data may hold."""

from __future__ import annotations

import os
import re
from typing import Optional

from ..errors import SockredirError

MOST = 256 * 1024 * 1024
TCP_MEM = "/proc/sys/net/ipv4/tcp_mem"
_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS.update({_letter: 1024**_power, _letter + "B": 1024**_power, _letter + "IB": 1024**_power})


def size(text: str, option: str) -> int:
    """Bytes of ``4096``, ``64k``, ``256 MiB`` ...; every unit is a power of 1024.

    :raises SockredirError: it is no size above zero.
    """
    match = re.match(r"\s*(\d+)\s*([A-Za-z]*)\s*$", str(text))
    factor = _UNITS.get(match.group(2).upper()) if match else None
    if not match or factor is None or int(match.group(1)) == 0:
        raise SockredirError(f"{option}: {text!r} is no size", "give bytes or a unit, such as 256 MiB")
    return int(match.group(1)) * factor


def default_budget(tcp_mem: Optional[str] = None, page: int = os.sysconf("SC_PAGE_SIZE")) -> int:
    """256 MiB, or half of where TCP's memory pressure ends on this host, the smaller; bytes.

    :param tcp_mem: str, the text of ``net.ipv4.tcp_mem``: three numbers of pages (tcp(7)); read when not given.
    """
    if tcp_mem is None:
        try:
            with open(TCP_MEM, encoding="ascii") as figures:
                tcp_mem = figures.read()
        except OSError:
            return MOST
    return min(MOST, int(tcp_mem.split()[0]) * page // 2)
