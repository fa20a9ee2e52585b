# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare interception rules with the manifest, and look around them for what keeps them from working.

What is around them belongs to others: enabling does not repair it.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

from ..change.step import Plan
from ..errors import SockredirError
from ..host import cgroups, listeners
from ..kernel import attachments, hooks, objects
from ..resource.intercept import observe, plan
from ..resource.intercept.observe import recorded
from ..resource.snapshot import Snapshot
from ..state import manifest
from .drift_kinds import refused

Rule = Dict[str, Any]
_CONNECT = [hook for hook in hooks.SOCK_ADDR if hook.section in ("cgroup/connect4", "cgroup/connect6")]


class Rewriter(NamedTuple):
    """A program that may send connections elsewhere.

    :ivar cgroup: str, where it is attached, an absolute path.
    :ivar digest: as the loader wrote it; None if it is not this collection's.
    """

    cgroup: str
    hook: str
    program_id: int
    name: str
    digest: Optional[str]


def rules(document: manifest.Manifest) -> Plan:
    """What it takes to have the rules that the manifest names in the programs' map; reads only."""
    try:
        wanted, pin_dir = recorded(document), document["pin_dir"]
        observed = observe.observe(pin_dir, document)
        if observed.rules is None:
            return []
        layout = observe.to_layout(wanted)
        return plan.steps(wanted, layout, observed, observe.unlisted(pin_dir, layout))
    except SockredirError as error:
        return [refused("intercepts", error.message, "settings_changed")]


def surroundings(document: manifest.Manifest, host: Snapshot) -> Plan:
    """Proxies that listen outside their cgroup, and other programs that rewrite the same connections; reads only."""
    rules = recorded(document)
    if not rules:
        return []
    try:
        places = {rule["proxy_cgroup"]: _ids(rule["proxy_cgroup"], host) for rule in rules if rule["proxy_cgroup"]}
        rewriters = [found for path in _ways_up(rules, host) for found in _rewriters(path, host)]
    except SockredirError as error:
        return [refused("intercepts", error.message, "settings_changed")]
    return outside(rules, listeners.with_cgroups(), places) + others(rewriters)


def outside(rules: Sequence[Rule], heard: Sequence[listeners.Listener], places: Mapping[str, Set[int]]) -> Plan:
    """What listens at a rule's ``to`` without being its proxy: it is told no destination. Pure.

    A rule with ``proxy_user`` is left out: it allows a proxy in any cgroup.

    :param places: ids of each ``proxy_cgroup`` and of the cgroups below it.
    """
    return [
        refused(
            f"rule {rule['name']}: {end}",
            "its listener was made outside the proxy's cgroup",
            "proxy_outside",
            f"in {rule['proxy_cgroup']}",
        )
        for rule in rules
        if rule["proxy_user"] is None
        for end in rule["to"]
        if any(_is_elsewhere(each, places[rule["proxy_cgroup"]]) for each in listeners.reached(end, heard))
    ]


def _is_elsewhere(listener: listeners.Listener, inside: Set[int]) -> bool:
    return listener.cgroup is not None and listener.cgroup not in inside


def others(rewriters: Sequence[Rewriter]) -> Plan:
    """Those that are not this collection's. Pure."""
    return [
        refused(
            f"{each.cgroup}: {each.hook}",
            f"program {each.name} (id {each.program_id}) may send connections elsewhere",
            "connect_hook",
            "only this collection's",
        )
        for each in rewriters
        if each.digest is None
    ]


def _ids(cgroup: str, host: Snapshot) -> Set[int]:
    """A cgroup and all below it; none if it does not exist."""
    found = (cgroups.cgroup_id(path) for path, _names, _files in os.walk(cgroups.resolve(cgroup, host.mounts)))
    return {number for number in found if number is not None}


def _ways_up(rules: Sequence[Rule], host: Snapshot) -> List[str]:
    """The cgroups of programs and all above them, each once: the programs of all of them run, the uppermost last."""
    root = cgroups.resolve("/", host.mounts)
    found: Set[str] = set()
    for rule in rules:
        path = cgroups.resolve(rule["cgroup"], host.mounts)
        while path not in found:
            found.add(path)
            path = path if path == root else os.path.dirname(path)
    return sorted(path for path in found if os.path.isdir(path))


def _rewriters(cgroup: str, host: Snapshot) -> Iterator[Rewriter]:
    number = cgroups.cgroup_id(cgroup) or 0
    with attachments.opened(hooks.CGROUP, cgroup) as target:
        found = [
            (hook, each) for hook in _CONNECT for each in attachments.attached(hook, target, number, host.links)[0]
        ]
    for hook, each in found:
        program = objects.program_by_id(each.program_id)
        if program:
            yield Rewriter(cgroup, hook.name, program.id, program.name, program.digest)
