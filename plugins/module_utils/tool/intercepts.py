# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl intercepts``: the interception rules, and what they have done."""

from __future__ import annotations

from typing import Any, Dict, List

from ..datapath import intercept
from ..errors import SockredirError
from ..host_report import intercepts
from . import context

Rule = Dict[str, Any]


def show(state_dir: str, as_json: bool) -> int:
    """:raises SockredirError: nothing of interception is loaded."""
    document = context.enabled(state_dir)
    found = intercepts.report(document["pin_dir"], document)
    if found is None:
        raise SockredirError(f"no interception programs are loaded in {document['pin_dir']}", "see docs/intercept.md")
    if as_json:
        context.show_json(found)
    else:
        context.show(text(found["rules"], found["other"]) + [note(each) for each in found["notes"]])
    return context.OK


def text(rules: List[Rule], other: Dict[str, int]) -> List[str]:
    """For each rule who, where to, whether somebody listens there, and what has happened at least once."""
    lines: List[str] = []
    for rule in rules:
        proxy = rule["proxy_cgroup"] or f"user {rule['proxy_user']}"
        lines.append(f"{rule['name']}: {rule['cgroup']} -> {proxy}")
        for end, there in rule["listening"].items():
            lines.append(f"  {end}: {'listening' if there else 'nobody listens: ' + rule['when_down']}")
        lines += _events(rule["events"])
    if not rules:
        lines.append("no rules: nothing is intercepted")
    return lines + (["other:", *_events(other)] if any(other.values()) else [])


def note(found: Dict[str, str]) -> str:
    """What is around a rule, in a line."""
    subject = f"rule {found['rule']}: " if found["rule"] else ""
    return f"note: {subject}{found['found']}; {found['cure']}"


def _events(counts: Dict[str, int]) -> List[str]:
    return [
        f"  {event.label:<12} {counts[event.label]:>12}  {meaning}"
        for event, meaning in intercept.DESCRIPTIONS.items()
        if counts[event.label]
    ]
