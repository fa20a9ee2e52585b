# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TCP connections a rule is for: the Python mirror of ``bpf/intercept_rules.h``. Pure."""

from __future__ import annotations

import ipaddress
from typing import Iterator, Optional, Sequence, Tuple, Union

from .intercept import End, Rule

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
#: Addresses of documentation, RFC 5737 and RFC 3849: nobody is there.
_DOCUMENTATION = {4: ("192.0.2.1", "198.51.100.1", "203.0.113.1"), 6: ("2001:db8::1",)}
_DISCARD = 9
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


def example(rules: Sequence[Rule], index: int, version: int) -> Optional[End]:
    """A destination that this rule is for, and none before it: where nobody is, if the rule has that.

    :param rules: in their order, those that the programs of the rule ask.
    :param version: of IP.
    """
    for address in _addresses(rules[index], version):
        for port in _ports(rules[index]):
            asked = End(address, port)
            if next((at for at, rule in enumerate(rules) if is_for(rule, asked)), None) == index:
                return asked
    return None


def _addresses(rule: Rule, version: int) -> Iterator[str]:
    yield from _DOCUMENTATION[version]
    for network in map(ipaddress.ip_network, rule.cidrs):
        if network.version == version:
            for at in (-2, -1, 0):
                yield str(network[max(at, -network.num_addresses)])


def _ports(rule: Rule) -> Iterator[int]:
    """Few of them, those where seldom anybody is first."""
    yield from (_DISCARD, 65000)
    for low, high in rule.ports:
        yield from (high, low)
    for _low, high in rule.exclude_ports:
        yield min(high + 1, 65535)
