# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much memory unread redirected data may hold."""

from __future__ import annotations

import os
import re

from ..errors import SockredirError
from . import layout

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
    """The budget, in bytes, where the operator names none; see :func:`..datapath.layout.default_budget`."""
    try:
        with open(TCP_MEM, encoding="ascii") as figures:
            return layout.default_budget(figures.read(), os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return layout.DEFAULT_BUDGET
