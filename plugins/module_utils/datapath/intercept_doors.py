# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports that connections from outside come to, in the map ``doors``, and the places of listeners in ``listeners``.

Mirrors ``bpf/intercept.h``, as :mod:`.intercept` does.
"""

from __future__ import annotations

import struct
from typing import Dict, List, Mapping, Sequence, Tuple

from . import layout
from .intercept import END, End, Range, Rule, encode_ends, flags_of
from .layout import LayoutError

MAX_DOORS = 1024
LISTENERS = 16

#: Half of ``intercepts``, and port.
KEY = struct.Struct("=II")
_HEAD, _TAIL = struct.Struct("=Q"), struct.Struct("=II")
SIZE = _HEAD.size + 2 * END.size + _TAIL.size
_LISTENER = struct.Struct("=Q16sHHI")
LISTENER_SIZE = _LISTENER.size


def encode(rules: Sequence[Rule]) -> Dict[int, bytes]:
    """Port -> the value of its element of ``doors``, of all rules; of rules with one port the first has it.

    :raises LayoutError: they are too many.
    """
    found: Dict[int, bytes] = {}
    for rule in rules:
        value = _HEAD.pack(rule.netns) + encode_ends(rule.to, 1, "to") + _TAIL.pack(rule.slot, flags_of(rule))
        for low, high in rule.inbound:
            for port in range(low, high + 1):
                found.setdefault(port, value)
    if len(found) > MAX_DOORS:
        raise LayoutError(f"inbound: {len(found)} ports, at most {MAX_DOORS} in all rules together")
    return found


def apply(rules: Sequence[Rule], doors: Mapping[int, bytes]) -> List[Rule]:
    """The rules with their ``inbound`` and ``netns``, from what :func:`encode` made."""
    ports: Dict[int, List[int]] = {}
    spaces: Dict[int, int] = {}
    for port, raw in sorted(doors.items()):
        slot, _flags = _TAIL.unpack_from(raw, SIZE - _TAIL.size)
        ports.setdefault(slot, []).append(port)
        (spaces[slot],) = _HEAD.unpack_from(raw)
    return [
        rule._replace(inbound=_ranges(ports[rule.slot]), netns=spaces[rule.slot]) if rule.slot in ports else rule
        for rule in rules
    ]


def _ranges(ports: Sequence[int]) -> Tuple[Range, ...]:
    """Of ascending ports."""
    known = set(ports)
    starts, ends = ([port for port in ports if port + step not in known] for step in (-1, 1))
    return tuple(zip(starts, ends))


def listener_keys(netns: int, end: End) -> List[bytes]:
    """The places for sockets that listen at an address of a rule's ``to``."""
    address = layout.encode_address(end.address)
    return [_LISTENER.pack(netns, address, end.port, 0, index) for index in range(LISTENERS)]
