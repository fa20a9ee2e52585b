# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``nft -j list ruleset`` says, see libnftables-json(5). Pure."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from ..errors import SockredirError
from .nat_chains import EVERY, Ports, Rule, Ruleset, complement, intersection

_TRANSLATES = ("redirect", "dnat")
_HERE = ("ip", "ip6", "inet")
_JUMPS = ("jump", "goto")
#: What may be compared with a protocol: its field in the header, or the kernel's own word for it.
_PROTOCOL = ("protocol", "nexthdr", "l4proto")

Words = Mapping[str, Any]
Maps = Dict[Tuple[Any, Any, Any], Any]


class Parsed(NamedTuple):
    """:ivar rules: what it can express.
    :ivar opaque: families whose table ``nat`` has extensions of iptables, which iptables alone can express.
    """

    rules: Ruleset
    opaque: Set[str]


def parse(text: str) -> Parsed:
    """:raises SockredirError: it is not what nft(8) writes."""
    try:
        objects = json.loads(text)["nftables"] if text.strip() else []
        return _parsed([(kind, each[kind]) for each in objects for kind in each])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SockredirError(f"nft -j list ruleset: it cannot be understood: {error!r}") from error


def _parsed(objects: List[Tuple[str, Any]]) -> Parsed:
    named = {
        (each["family"], each["table"], each["name"]): each.get("elem", [])
        for kind, each in objects
        if kind in ("map", "set")
    }
    opaque = {each["family"] for kind, each in objects if kind == "rule" and each["table"] == "nat" and _targets(each)}
    chains: Dict[str, List[Rule]] = {}
    for kind, each in objects:
        if kind == "rule" and each["family"] in _HERE:
            chains.setdefault(_chain(each, each["chain"]), []).append(_rule(each, named))
    bases = [
        _chain(each, each["name"])
        for kind, each in objects
        if kind == "chain" and (each.get("type"), each.get("hook")) == ("nat", "output")
    ]
    return Parsed(Ruleset(chains, bases), opaque)


def _chain(words: Words, name: str) -> str:
    return f"nft {words['family']} {words['table']} {name}"


def _targets(rule: Words) -> List[str]:
    """Names of the extensions of iptables in it, in lower case."""
    return [str((each["xt"] or {}).get("name")).lower() for each in rule["expr"] if "xt" in each]


def _rule(rule: Words, named: Maps) -> Rule:
    matches = [each["match"] for each in rule["expr"] if "match" in each]
    said = [word for each in rule["expr"] for word in each] + _targets(rule)
    does = next((word for word in _TRANSLATES if word in said), None)
    where = f"{_chain(rule, rule['chain'])} handle {rule['handle']}"
    return Rule(
        next((found for found in map(_protocol, matches) if found), ""),
        _all_ports(matches, rule, named),
        tuple(dict.fromkeys(_chain(rule, name) for name in _jumps(rule["expr"], rule, named))),
        f"{where}: {does}" if does else "",
    )


def _protocol(match: Words) -> Optional[str]:
    left = match["left"] if isinstance(match["left"], dict) else {}
    payload, right = left.get("payload", {}), match["right"]
    if payload.get("field") == "dport" and payload.get("protocol") != "th":
        return str(payload["protocol"])
    key = payload.get("field") or left.get("meta", {}).get("key")
    return right if match["op"] == "==" and key in _PROTOCOL and isinstance(right, str) else None


def _all_ports(matches: List[Words], rule: Words, named: Maps) -> Ports:
    ports = EVERY
    for match in matches:
        left = match["left"]
        if isinstance(left, dict) and left.get("payload", {}).get("field") == "dport":
            ports = intersection(ports, _ports(match, rule, named))
    return ports


def _ports(match: Words, rule: Words, named: Maps) -> Ports:
    ranges = _ranges(match["right"], rule, named)
    if ranges is None or match["op"] not in ("==", "in", "!="):
        return EVERY
    return complement(ranges) if match["op"] == "!=" else ranges


def _ranges(right: Any, rule: Words, named: Maps) -> Optional[Ports]:
    """The ports that are compared with; None: it does not say."""
    if isinstance(right, int):
        return ((right, right),)
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": named.get((rule["family"], rule["table"], right[1:]), [None])}
    if not isinstance(right, dict):
        return None
    if "range" in right:
        low, high = right["range"]
        return ((low, high),) if isinstance(low, int) and isinstance(high, int) else None
    if "elem" in right:
        return _ranges(right["elem"]["val"], rule, named)
    parts = [_ranges(each, rule, named) for each in right.get("set", [None])]
    return None if None in parts else tuple(each for part in parts for each in part or ())


def _jumps(words: Any, rule: Words, named: Maps) -> Iterator[str]:
    """Every chain that an expression may go to, those in verdict maps included."""
    if isinstance(words, list):
        for each in words:
            yield from _jumps(each, rule, named)
    elif isinstance(words, dict):
        for key, value in words.items():
            if key in _JUMPS:
                yield value["target"]
            elif key == "vmap" and isinstance(value.get("data"), str):
                yield from _jumps(named.get((rule["family"], rule["table"], value["data"][1:])), rule, named)
            else:
                yield from _jumps(value, rule, named)
