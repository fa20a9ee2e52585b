# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator should know beside interception rules, without being a difference from the manifest.

Connections that are not intercepted although a rule is for them, and address translation for the same ports.
"""

from __future__ import annotations

import collections
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Set

from ..datapath import intercept, intercept_match
from ..datapath.settings import ranges
from ..errors import SockredirError
from ..host import cgroups, connections, listeners, mounts, nat, nat_chains, processes
from ..resource.intercept.observe import to_layout

Note = Dict[str, str]
_DNS = 53
_OLDER = "they are older than the rule or its programs"
_DIRECT = f"{_OLDER}, or were made while nobody listened"


class Rule(NamedTuple):
    """A rule with the processes that it is about.

    :ivar wanted: as the manifest has it.
    :ivar apps: ids of the processes whose connections are intercepted.
    :ivar proxies: of those in the proxy's cgroup.
    """

    wanted: Mapping[str, Any]
    layout: intercept.Rule
    apps: Set[int]
    proxies: Set[int]


def observe(rules: Sequence[Dict[str, Any]]) -> List[Note]:
    """The notes on these rules, for this network namespace; reads only."""
    if not rules:
        return []
    return _looked_at("connections", lambda: _connections(rules)) + _looked_at(
        "NAT", lambda: translated(rules, nat.observe())
    )


def _looked_at(what: str, look: Callable[[], List[Note]]) -> List[Note]:
    try:
        return look()
    except (SockredirError, OSError) as error:
        return [_note("not_looked_at", "", f"{what}: {error}", "see the cause")]


def _note(kind: str, rule: str, found: str, cure: str) -> Note:
    return {"kind": kind, "rule": rule, "found": found, "cure": cure}


def _connections(rules: Sequence[Dict[str, Any]]) -> List[Note]:
    known = [
        Rule(rule, layout, _members(rule["cgroup"]), _members(rule["proxy_cgroup"]))
        for rule, layout in zip(rules, to_layout(rules, check=True))
    ]
    holders = processes.socket_holders(pid for rule in known for pid in rule.apps)
    return bypassing(known, list(connections.established()), holders, {port for _at, port in listeners.listeners()})


def _members(cgroup: Any) -> Set[int]:
    return cgroups.members(cgroups.resolve(cgroup, mounts.read())) if cgroup else set()


def bypassing(
    rules: Sequence[Rule],
    known: Iterable[connections.Connection],
    holders: Mapping[int, processes.Process],
    served: Set[int],
) -> List[Note]:
    """A note for each rule with connections that it is for and that go straight to where they were to go. Pure.

    :param holders: who holds a socket, by its inode.
    :param served: ports with a listener: a connection from such a port was accepted, not made.
    """
    found: Dict[str, List[Any]] = {}
    for each in known:
        holder = holders.get(each.inode)
        if holder and not each.device and each.local[1] not in served:
            for rule in _rules_for(rules, each, holder)[:1]:
                found.setdefault(rule.wanted["name"], []).append((holder, each))
    return [_bypassed(rule.wanted, found[rule.wanted["name"]]) for rule in rules if rule.wanted["name"] in found]


def _rules_for(rules: Sequence[Rule], each: connections.Connection, holder: processes.Process) -> List[Rule]:
    return [
        rule
        for rule in rules
        if holder.pid in rule.apps
        and holder.pid not in rule.proxies
        and each.user != rule.layout.proxy_user
        and intercept_match.is_for(rule.layout, intercept.End(*each.remote))
    ]


def _bypassed(rule: Mapping[str, Any], made: Sequence[Any]) -> Note:
    names = collections.Counter(holder.comm for holder, _each in made)
    end = intercept.End(*min(each.remote for _holder, each in made)).text
    count = f"{len(made)} connection{'s' * (len(made) != 1)}"
    why = _DIRECT if rule["when_down"] == "direct" else _OLDER
    return _note(
        "not_intercepted",
        rule["name"],
        f"{count} not intercepted, of {processes.list_names(names)}, such as to {end}",
        f"{why}; restart these programs",
    )


def translated(rules: Sequence[Mapping[str, Any]], found: Sequence[nat_chains.Found]) -> List[Note]:
    """A note for each rule whose ports, or whose proxy's, the host's NAT rules are for too. Pure."""
    notes = []
    for rule in rules:
        wanted = _ports(rule)
        same = [
            each
            for each in found
            if any(each.protocol in ("", one) and nat_chains.intersection(each.ports, wanted[one]) for one in wanted)
        ]
        if same:
            more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
            notes.append(
                _note(
                    "nat_rule",
                    rule["name"],
                    f"NAT is set for the same ports: {same[0].text}{more}",
                    "it may send the proxy's connections elsewhere, and those that are not intercepted; remove it",
                )
            )
    return notes


def _ports(rule: Mapping[str, Any]) -> Dict[str, nat_chains.Ports]:
    """By protocol, to which ports connections go before and after they are intercepted."""
    left = nat_chains.complement(ranges(rule["exclude_ports"], "exclude_ports"))
    chosen = nat_chains.intersection(ranges(rule["ports"] or ["1-65535"], "ports"), left)
    proxys = ranges((end.rpartition(":")[2] for end in rule["to"]), "to")
    tcp = {"tcp": chosen + proxys} if rule["to"] else {}
    return {**tcp, "udp": ((_DNS, _DNS),)} if rule["udp_dns"] else tcp
