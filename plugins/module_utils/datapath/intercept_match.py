# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TCP connections a rule is for: the Python mirror of ``bpf/intercept_rules.h``. Pure."""

from __future__ import annotations

import ipaddress
from typing import Sequence, Tuple, Union

from .intercept import End, Rule

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
#: Loopback, link-local, multicast, and the host itself: what no rule means that does not say so.
_STAYS_HERE = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "255.255.255.255",
            "::/128",
            "::1/128",
            "fe80::/10",
            "ff00::/8",
        ),
    )
)


def is_for(rule: Rule, asked: End) -> bool:
    """Whether a program of the rule's cgroup that connects there is sent to the proxy."""
    address = plain(asked.address)
    to = [end for end in rule.to if ipaddress.ip_address(end.address).version == address.version]
    if not to or (to[0].port == asked.port and ipaddress.ip_address(to[0].address) == address):
        return False
    return _right_port(rule, asked.port) and _right_address(rule, address)


def plain(text: str) -> Address:
    """An address, a v4-mapped one as IPv4."""
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def _right_port(rule: Rule, port: int) -> bool:
    return not _in_ranges(rule.exclude_ports, port) and (not rule.ports or _in_ranges(rule.ports, port))


def _in_ranges(ranges: Sequence[Tuple[int, int]], port: int) -> bool:
    return any(low <= port <= high for low, high in ranges)


def _right_address(rule: Rule, address: Address) -> bool:
    if any(address in ipaddress.ip_network(each) for each in rule.exclude_cidrs):
        return False
    if not rule.cidrs:
        return not any(address in network for network in _STAYS_HERE)
    return any(address in ipaddress.ip_network(each) for each in rule.cidrs)
