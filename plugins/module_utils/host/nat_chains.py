# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains of rules that translate addresses, and which ports they do it for. Pure.

What a rule demands beside protocol and port (addresses, users, interfaces) is not looked at: it may translate.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Sequence, Set, Tuple

Ports = Tuple[Tuple[int, int], ...]
EVERY: Ports = ((0, 65535),)


class Rule(NamedTuple):
    """A rule of a chain.

    :ivar protocol: ``tcp``, ``udp``, another, or empty for all.
    :ivar ports: destination ports that it is for.
    :ivar jumps: chains that it goes on in.
    :ivar text: where it is, and what it says if it translates by itself; empty if it does not.
    """

    protocol: str
    ports: Ports
    jumps: Tuple[str, ...] = ()
    text: str = ""


class Ruleset(NamedTuple):
    """:ivar chains: by a name that no other ruleset uses.
    :ivar bases: those in which a connection of this host begins.
    """

    chains: Dict[str, List[Rule]]
    bases: List[str]


class Found(NamedTuple):
    """A rule that sends connections elsewhere, with the ports and the protocol (empty: all) that reach it."""

    protocol: str
    ports: Ports
    text: str


def merged(rulesets: Sequence[Ruleset]) -> Ruleset:
    chains = {name: rules for each in rulesets for name, rules in each.chains.items()}
    return Ruleset(chains, [base for each in rulesets for base in each.bases])


def translations(rules: Ruleset) -> List[Found]:
    """Every translating rule that can be reached from a base chain, with what reaches it by its first way."""
    found: List[Found] = []
    seen: Set[Tuple[str, str, Ports]] = set()
    todo = [(base, "", EVERY) for base in reversed(rules.bases)]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        chain, protocol, ports = state
        for rule in rules.chains.get(chain, []):
            if protocol and rule.protocol and protocol != rule.protocol:
                continue
            narrowed = (protocol or rule.protocol, intersection(ports, rule.ports))
            if not narrowed[1]:
                continue
            if rule.text:
                found.append(Found(*narrowed, rule.text))
            todo += [(jump, *narrowed) for jump in rule.jumps]
    return list({each.text + each.protocol + str(each.ports): each for each in found}.values())


def intersection(one: Ports, other: Ports) -> Ports:
    both = [(max(a[0], b[0]), min(a[1], b[1])) for a in one for b in other]
    return tuple(each for each in both if each[0] <= each[1])


def complement(ports: Iterable[Tuple[int, int]]) -> Ports:
    """All other ports."""
    left, begin = [], 0
    for low, high in sorted(ports):
        if begin < low:
            left.append((begin, low - 1))
        begin = max(begin, high + 1)
    return (*left, (begin, 65535)) if begin <= 65535 else tuple(left)
