# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's settings for the programs, in the form that the manifest keeps and reports show.

A dict: ``mode`` (enforce, observe, drain), ``ports`` and ``exclude_ports`` (lists of ``80`` or ``8000-8099``, joined
and sorted), ``cidrs``, ``cross_netns``, ``budget`` and ``demote_below`` (bytes), ``demote_after`` (messages). As
an option, ``demote_below`` may be None: what calibration finds.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ..errors import SockredirError
from .settings_value import DEFAULT_DEMOTE_BELOW, Mode, Settings, encode_settings

Wanted = Dict[str, Any]
Range = Tuple[int, int]

_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?$")


class Found(NamedTuple):
    """The ``settings`` map.

    :param raw: bytes, its value.
    :param settings: the value decoded; None if nobody has written it, or it makes no sense.
    :param trouble: str, why there are no settings, or why they are not to be trusted; empty if all is well.
    """

    raw: bytes
    settings: Optional[Settings]
    trouble: str


def normal(options: Wanted) -> Wanted:
    """The canonical form of the options; options that mean the same give the same result.

    :raises SockredirError: it names the option that the programs could not follow.
    """
    wanted = {
        "mode": options["mode"],
        "ports": _show(ranges(options["ports"], "ports")),
        "exclude_ports": _show(ranges(options["exclude_ports"], "exclude_ports")),
        "cidrs": networks(options["cidrs"]),
        "cross_netns": bool(options["cross_netns"]),
        "budget": options["budget"],
        "demote_below": options["demote_below"],
        "demote_after": options["demote_after"],
    }
    below = wanted["demote_below"]
    encode_settings(to_layout({**wanted, "demote_below": DEFAULT_DEMOTE_BELOW if below is None else below}))
    return wanted


def to_layout(wanted: Wanted) -> Settings:
    """What is written into the ``settings`` map.

    :raises SockredirError: a key is missing or makes no sense.
    """
    try:
        return Settings(
            mode=Mode[str(wanted["mode"]).upper()],
            budget=wanted["budget"],
            cross_netns=wanted["cross_netns"],
            include=ranges(wanted["ports"], "ports"),
            exclude=ranges(wanted["exclude_ports"], "exclude_ports"),
            cidrs=tuple(wanted["cidrs"]),
            demote_below=wanted["demote_below"],
            demote_after=wanted["demote_after"],
        )
    except KeyError as error:
        raise SockredirError(f"settings: {error} is missing or unknown") from error


def from_layout(found: Settings) -> Wanted:
    """What the programs read now."""
    return {
        "mode": found.mode.name.lower(),
        "ports": _show(found.include),
        "exclude_ports": _show(found.exclude),
        "cidrs": list(found.cidrs),
        "cross_netns": found.cross_netns,
        "budget": found.budget,
        "demote_below": found.demote_below,
        "demote_after": found.demote_after,
    }


def ranges(ports: Iterable[object], option: str) -> Tuple[Range, ...]:
    """Port ranges, sorted, those that overlap or touch joined.

    :raises SockredirError: one is not a port from 1 to 65535, or ends before it begins.
    """
    joined: List[Range] = []
    for low, high in sorted(_range(str(text), option) for text in ports):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def networks(cidrs: Iterable[object]) -> List[str]:
    """Networks in their usual notation, each once, sorted; v4-mapped ones as IPv4.

    :raises SockredirError: one is not a network, or has bits set beyond its prefix.
    """
    found = set()
    for text in cidrs:
        try:
            found.add(_unmapped(ipaddress.ip_network(str(text).strip())))
        except ValueError as error:
            raise SockredirError(f"cidrs: {error}", "write networks as 10.1.0.0/16 or fd00::/8") from error
    return [str(network) for network in sorted(found, key=lambda network: (network.version, network))]


def _unmapped(network: Any) -> Any:
    address = getattr(network.network_address, "ipv4_mapped", None)
    if address is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network(f"{address}/{network.prefixlen - 96}")


def _range(text: str, option: str) -> Range:
    match = _RANGE.match(text)
    low = int(match.group(1)) if match else 0
    high = int(match.group(2) or low) if match else 0
    if not 1 <= low <= high <= 65535:
        raise SockredirError(f"{option}: {text!r} is not a port or a range", "write 80, or 8000-8099, from 1 to 65535")
    return low, high


def _show(found: Iterable[Range]) -> List[str]:
    return [str(low) if low == high else f"{low}-{high}" for low, high in found]
