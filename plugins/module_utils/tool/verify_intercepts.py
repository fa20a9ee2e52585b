# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of ``sockredirctl verify`` that is about interception: one connection for each rule."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from ..datapath import intercept, intercept_live, intercept_match, intercept_rules
from ..host import cgroups, listeners, mounts, proof_intercept
from ..resource.intercept.observe import recorded, to_layout

Rule = Dict[str, Any]


def prove(document: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """For each rule its ``rule`` (name), ``asked`` and ``to``, and what :func:`.proof_intercept.tried` returns.

    :raises SockredirError: the rules may not be read, or name what this host does not have.
    """
    rules = recorded(dict(document))
    layouts = to_layout(rules)
    heard = listeners.listeners() if rules else set()
    return [_proved(document["pin_dir"], rules, layouts, at, heard) for at in range(len(rules))]


def _proved(
    pin_dir: str, rules: Sequence[Rule], layouts: Sequence[intercept.Rule], at: int, heard: Set[Tuple[str, int]]
) -> Dict[str, Any]:
    rule, chosen = rules[at], _chosen(rules, layouts, at, heard)
    found = {"rule": rule["name"], "asked": None, "to": None, "by": None, "told": None, "wrong": None}
    if chosen is None:
        why = "no address is for it and for no rule before it" if rule["to"] else "it is for name servers alone"
        return {**found, "unproved": why}
    before = _claimed(pin_dir, rule)
    result = proof_intercept.tried(chosen)
    if not (result["told"] or result["wrong"] or result["unproved"]) and _claimed(pin_dir, rule) == before:
        result["unproved"] = "the proxy closed the connection before its destination could be read"
    return {**found, "asked": chosen.asked.text, "to": chosen.to.text, **result}


def _claimed(pin_dir: str, rule: Rule) -> int:
    counts = intercept_live.counters(pin_dir) or {}
    return counts.get(rule["slot"], {}).get(intercept.Event.CLAIMED.label, 0)


def _chosen(
    rules: Sequence[Rule], layouts: Sequence[intercept.Rule], at: int, heard: Set[Tuple[str, int]]
) -> Optional[proof_intercept.Case]:
    """At an address where the proxy listens, if there is one."""
    rule, known = rules[at], mounts.read()
    asking = [one for one in range(at + 1) if intercept_rules.is_below(rule["cgroup"], rules[one]["cgroup"])]
    apps, proxys = (cgroups.resolve(rule[key] or rule["cgroup"], known) for key in ("cgroup", "proxy_cgroup"))
    cases = []
    for to, end in zip(layouts[at].to, rule["to"]):
        version = 6 if ":" in to.address else 4
        asked = intercept_match.example([layouts[one] for one in asking], len(asking) - 1, version)
        if asked:
            there = listeners.is_heard(end, heard)
            cases.append(proof_intercept.Case(apps, proxys, asked, to, there, layouts[at].proxy_user))
    return next((case for case in cases if case.heard), cases[0] if cases else None)


def text(found: Sequence[Mapping[str, Any]]) -> List[str]:
    """A line for each rule."""
    return [_line(each) for each in found]


def _line(found: Mapping[str, Any]) -> str:
    verdict = "wrong" if found["wrong"] else "not proved" if found["unproved"] else "right"
    arrived = f"{found['asked']} arrived at {found['to']}, at {found['by']}"
    return f"{verdict}: rule {found['rule']}: {found['wrong'] or found['unproved'] or arrived}"
