# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and values of the interception maps: the Python mirror of ``bpf/intercept.h``.

Pure functions between bytes and named values, as :mod:`.layout` is for the data path.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import layout
from .layout import LayoutError

LAYOUT = 1
MAX_RULES = 32
MAX_PORTS = 32
MAX_CIDRS = 32
MAX_DNS = 3
EVENTS_SIZE = 16

VALID = 1
PROXY_USER = 2
DIRECT_WHEN_DOWN = 4
SOCKNAME = 8
HAS_INBOUND = 16

END = struct.Struct("=16sHH")
RULE_HEAD = struct.Struct("=QQIIIIIIIIII")
RULE_SIZE = (
    RULE_HEAD.size + 2 * (1 + MAX_DNS) * END.size + 2 * MAX_PORTS * layout.PORTS.size + 2 * MAX_CIDRS * layout.CIDR.size
)
STATE = struct.Struct("=II")
COUNT = struct.Struct("=Q")

Range = Tuple[int, int]


class Event(enum.IntEnum):
    """What is counted; index into a slot of ``intercepted``."""

    REWRITTEN = 0
    PASSED = 1
    DIRECT = 2
    LOOPED = 3
    LEFT_ALONE = 4
    FAILED = 5
    LOST = 6
    CLAIMED = 7
    UNCLAIMED = 8
    WITHDRAWN = 9
    ANSWERED = 10
    DNS = 11
    DNS_PASSED = 12
    INBOUND = 13
    TURNED_AWAY = 14

    @property
    def label(self) -> str:
        """The name in reports, as ``rewritten``."""
        return self.name.lower()


DESCRIPTIONS = {
    Event.REWRITTEN: "connections sent to the proxy",
    Event.PASSED: "connections that no rule matches",
    Event.DIRECT: "connections made directly, because nothing listened at the proxy's address",
    Event.LOOPED: "refused: the proxy was about to connect to itself",
    Event.LEFT_ALONE: "connections of sockets bound to a device",
    Event.FAILED: "refused: the kernel had no memory to remember the destination",
    Event.LOST: "connections whose destination the proxy cannot know, because the map pending is full",
    Event.CLAIMED: "connections that the proxy accepted, with their destination",
    Event.UNCLAIMED: "connections that the proxy accepted from programs that asked for its address",
    Event.WITHDRAWN: "connections that ended before the proxy accepted them",
    Event.ANSWERED: "answers to SO_ORIGINAL_DST",
    Event.DNS: "datagrams to name servers, and sockets connected to them, sent to the proxy",
    Event.DNS_PASSED: "datagrams to one more name server than the rule has addresses for",
    Event.INBOUND: "connections from outside that the proxy was given",
    Event.TURNED_AWAY: "connections from outside refused, because nothing listened at the proxy's address",
}


class End(NamedTuple):
    """An address with a port."""

    address: str
    port: int

    @property
    def text(self) -> str:
        """As rules name it, ``[::1]:80``."""
        return layout.endpoint(self.address, self.port)


class Rule(NamedTuple):
    """Whose connections go where.

    :ivar apps: id of the cgroup of the programs, and its depth below the root of cgroup2.
    :ivar proxy: the same of the proxy; an id of 0 where only its user tells it.
    :ivar slot: where its events are counted, 1 to MAX_RULES.
    :ivar to: the proxy's listener, at most one of each family.
    :ivar dns: where questions to name servers go, at most MAX_DNS of each family; those to the first name server of a
        socket go to the first.
    :ivar ports: ranges of ports; none: all.
    :ivar cidrs: networks; none: all but loopback, link-local and multicast.
    :ivar inbound: ranges of ports at which connections from outside are taken, in the network namespace with the cookie
        ``netns``.
    """

    apps: int
    apps_level: int
    to: Tuple[End, ...]
    slot: int
    proxy: int = 0
    proxy_level: int = 0
    proxy_user: Optional[int] = None
    ports: Tuple[Range, ...] = ()
    exclude_ports: Tuple[Range, ...] = ()
    cidrs: Tuple[str, ...] = ()
    exclude_cidrs: Tuple[str, ...] = ()
    dns: Tuple[End, ...] = ()
    direct_when_down: bool = False
    sockname: bool = False
    inbound: Tuple[Range, ...] = ()
    netns: int = 0


def encode_rule(rule: Rule) -> bytes:
    """The value of one element of ``intercepts``; its ``inbound`` is in ``doors``, see :mod:`.intercept_doors`.

    :raises LayoutError: it names what the layout cannot hold.
    """
    if not 1 <= rule.slot <= MAX_RULES:
        raise LayoutError(f"slot: {rule.slot} is not from 1 to {MAX_RULES}")
    lists = (rule.ports, rule.exclude_ports, rule.cidrs, rule.exclude_cidrs)
    head = RULE_HEAD.pack(
        rule.apps,
        rule.proxy,
        rule.apps_level,
        rule.proxy_level,
        rule.proxy_user or 0,
        flags_of(rule),
        rule.slot,
        *map(len, lists),
        0,
    )
    ends = encode_ends(rule.to, 1, "to") + encode_ends(rule.dns, MAX_DNS, "udp_dns")
    ports = _encode_ports(rule.ports, "ports") + _encode_ports(rule.exclude_ports, "exclude_ports")
    cidrs = _encode_cidrs(rule.cidrs, "cidrs") + _encode_cidrs(rule.exclude_cidrs, "exclude_cidrs")
    return head + ends + ports + cidrs


def decode_rule(raw: bytes) -> Optional[Rule]:
    """The rule in an element of ``intercepts``; None if there is none.

    :raises LayoutError: it makes no sense.
    """
    if len(raw) != RULE_SIZE:
        raise LayoutError(f"a rule is {len(raw)} bytes, not {RULE_SIZE}")
    apps, proxy, apps_level, proxy_level, user, flags, slot, *sizes = RULE_HEAD.unpack_from(raw)
    if not flags & VALID:
        return None
    dns_at = RULE_HEAD.size + 2 * END.size
    ports_at = dns_at + 2 * MAX_DNS * END.size
    excluded_at = ports_at + MAX_PORTS * layout.PORTS.size
    cidrs_at = excluded_at + MAX_PORTS * layout.PORTS.size
    return Rule(
        apps,
        apps_level,
        _decode_ends(raw, RULE_HEAD.size, 1),
        slot,
        proxy,
        proxy_level,
        user if flags & PROXY_USER else None,
        _decode_ports(raw, ports_at, sizes[0]),
        _decode_ports(raw, excluded_at, sizes[1]),
        _decode_cidrs(raw, cidrs_at, sizes[2]),
        _decode_cidrs(raw, cidrs_at + MAX_CIDRS * layout.CIDR.size, sizes[3]),
        _decode_ends(raw, dns_at, MAX_DNS),
        bool(flags & DIRECT_WHEN_DOWN),
        bool(flags & SOCKNAME),
    )


def flags_of(rule: Rule) -> int:
    """``flags`` of a rule, which its doors have too."""
    user = PROXY_USER if rule.proxy_user is not None else 0
    direct = DIRECT_WHEN_DOWN if rule.direct_when_down else 0
    return VALID | user | direct | (SOCKNAME if rule.sockname else 0) | (HAS_INBOUND if rule.inbound else 0)


def _family(end: End) -> int:
    return ipaddress.ip_address(end.address).version


def encode_ends(ends: Sequence[End], most: int, what: str) -> bytes:
    """Places for ``most`` addresses of IPv4, then as many of IPv6.

    :raises LayoutError: there are more, or one has no port.
    """
    text = b""
    for version in (4, 6):
        family = [end for end in ends if _family(end) == version]
        if len(family) > most:
            raise LayoutError(f"{what}: {len(family)} addresses of IPv{version}, at most {most}")
        text += b"".join(_encode_end(end, what) for end in family).ljust(most * END.size, b"\0")
    return text


def _encode_end(end: End, what: str) -> bytes:
    if not 1 <= end.port <= 65535:
        raise LayoutError(f"{what}: {end.port} is not a port from 1 to 65535")
    return END.pack(layout.encode_address(end.address), end.port, 0)


def _decode_ends(raw: bytes, at: int, most: int) -> Tuple[End, ...]:
    found = [END.unpack_from(raw, at + i * END.size) for i in range(2 * most)]
    return tuple(End(layout.decode_address(address), port) for address, port, _zero in found if port)


def _encode_ports(ranges: Sequence[Range], what: str) -> bytes:
    if len(ranges) > MAX_PORTS:
        raise LayoutError(f"{what}: {len(ranges)} ranges, at most {MAX_PORTS}")
    return b"".join(layout.PORTS.pack(*one) for one in ranges).ljust(MAX_PORTS * layout.PORTS.size, b"\0")


def _decode_ports(raw: bytes, at: int, count: int) -> Tuple[Range, ...]:
    _check_count(count, MAX_PORTS, "ranges of ports")
    size = layout.PORTS.size
    return tuple((low, high) for low, high in (layout.PORTS.unpack_from(raw, at + i * size) for i in range(count)))


def _encode_cidrs(cidrs: Sequence[str], what: str) -> bytes:
    if len(cidrs) > MAX_CIDRS:
        raise LayoutError(f"{what}: {len(cidrs)} networks, at most {MAX_CIDRS}")
    return b"".join(map(_encode_cidr, cidrs)).ljust(MAX_CIDRS * layout.CIDR.size, b"\0")


def _encode_cidr(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return layout.CIDR.pack(layout.encode_address(str(network.network_address)), bits)


def _decode_cidrs(raw: bytes, at: int, count: int) -> Tuple[str, ...]:
    _check_count(count, MAX_CIDRS, "networks")
    return tuple(_decode_cidr(*layout.CIDR.unpack_from(raw, at + i * layout.CIDR.size)) for i in range(count))


def _decode_cidr(raw: bytes, bits: int) -> str:
    address = ipaddress.IPv6Address(raw)
    if address.ipv4_mapped and bits >= 96:
        return f"{address.ipv4_mapped}/{bits - 96}"
    return f"{address}/{bits}"


def _check_count(count: int, most: int, what: str) -> None:
    if count > most:
        raise LayoutError(f"a rule has {count} {what}, at most {most}")


def counts(values: Sequence[int]) -> Dict[int, Dict[str, int]]:
    """Slot -> event -> how often, of all counts in their order."""
    slots: List[Sequence[int]] = [values[at : at + EVENTS_SIZE] for at in range(0, len(values), EVENTS_SIZE)]
    return {slot: {event.label: found[event] for event in Event} for slot, found in enumerate(slots)}
