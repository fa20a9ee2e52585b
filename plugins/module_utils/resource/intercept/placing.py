# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that name services instead of cgroups: a slice below the accelerated one for each set of them. Pure.

A service can be in one slice only. So rules that name the same services share a slice, and no two others may have a
service in common.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import SockredirError
from ...host import systemd

Rule = Dict[str, Any]
Names = Tuple[str, ...]

#: Where the services of a rule are named -> the cgroup that they come to.
CGROUP_OF = {"apps": "cgroup", "proxy": "proxy_cgroup"}
#: The slice that has the others, if the whole host is accelerated.
_BASE = "sockredir.slice"


class Slice(NamedTuple):
    """:ivar cgroup: relative to the cgroup2 mount.
    :ivar services: by their full names, sorted.
    :ivar proxy: whether they are a rule's proxy: they come first.
    """

    cgroup: str
    services: Names
    proxy: bool

    @property
    def name(self) -> str:
        """Of the slice unit."""
        return self.cgroup.rpartition("/")[2]


def below(accelerated: str) -> str:
    """The cgroup that the slices are made below.

    :param accelerated: the accelerated cgroup, relative to the cgroup2 mount; one that is not a slice takes none.
    """
    path = accelerated.strip("/")
    return path if systemd.slice_of(path) else _BASE


def placed(rules: Sequence[Rule], accelerated: str) -> List[Rule]:
    """The rules with full names of services, and with the cgroups that these are put into.

    :param accelerated: relative to the cgroup2 mount.
    """
    named = [{**rule, **{key: _names(rule, key) for key in CGROUP_OF}} for rule in rules]
    made = _cgroups(named, below(accelerated))
    return [{**rule, **_places(rule, made), **{key: list(rule[key]) for key in CGROUP_OF}} for rule in named]


def _places(rule: Rule, made: Dict[Names, str]) -> Rule:
    """One that has a cgroup of its own too keeps it: :func:`wrong` says so."""
    return {cgroup: rule.get(cgroup) or made[rule[key]] for key, cgroup in CGROUP_OF.items() if rule[key]}


def _names(rule: Rule, key: str) -> Names:
    """A name that makes no sense stays as it is: :func:`wrong` says so."""
    return tuple(sorted({name if _problem(name) else systemd.service_name(name) for name in rule.get(key) or ()}))


def _problem(name: str) -> Optional[SockredirError]:
    try:
        systemd.service_name(name)
    except SockredirError as error:
        return error
    return None


def _cgroups(rules: Sequence[Rule], above: str) -> Dict[Names, str]:
    """Each set of services and its cgroup, named after the first rule by name that has them."""
    found: Dict[Names, str] = {}
    stem = above.rpartition("/")[2][: -len(".slice")]
    for rule in sorted(rules, key=lambda each: str(each.get("name"))):
        for key in CGROUP_OF:
            if rule[key]:
                # As systemd-escape(1): a dash would make one more slice between.
                own = str(rule.get("name")).replace("-", "\\x2d")
                name = f"{stem}-{own}_{key}.slice"
                found.setdefault(tuple(rule[key]), f"{above}/{name}")
    return found


def slices(rules: Sequence[Rule]) -> List[Slice]:
    """Those that placed rules need, proxies' first."""
    # Proxies last: one whose own connections are intercepted is a proxy.
    sets = {(rule[CGROUP_OF[key]], _valid(rule[key])): key for key in CGROUP_OF for rule in rules if rule.get(key)}
    found = [Slice(cgroup, names, key == "proxy") for (cgroup, names), key in sets.items()]
    return sorted(found, key=lambda each: (not each.proxy, each.cgroup))


def _valid(names: Sequence[str]) -> Names:
    return tuple(name for name in names if not _problem(name))


def wrong(rule: Rule, rules: Sequence[Rule], accelerated: str) -> List[str]:
    """What is wrong with the services that a rule names, each in one line.

    :param rule: as placed, one of ``rules``.
    """
    found = []
    made = _cgroups(rules, below(accelerated))
    for key, cgroup in CGROUP_OF.items():
        if not rule[key]:
            continue
        if rule[cgroup] != made[tuple(rule[key])]:
            found.append(f"{key}: it has {cgroup} too; give one of them")
        if accelerated.strip("/") and not systemd.slice_of(accelerated):
            found.append(
                f"{key}: {accelerated} is not a slice, so no services can be put below it; "
                "set cgroup to one, such as sockredir.slice"
            )
        problems = [(name, _problem(name)) for name in rule[key]]
        found += [f"{key}: {name!r} is not the name of a service" for name, problem in problems if problem]
        found += [f"{key}: {_shared(rule, key, other, other_key)}" for other, other_key in _others(rule, key, rules)]
    return found


def _others(rule: Rule, key: str, rules: Sequence[Rule]) -> List[Tuple[Rule, str]]:
    """The rules that have some of its services, but not the same ones."""
    mine = set(rule[key])
    return [
        (other, theirs)
        for other in rules
        for theirs in CGROUP_OF
        if mine & set(other[theirs]) and mine != set(other[theirs])
    ]


def _shared(rule: Rule, key: str, other: Rule, theirs: str) -> str:
    names = ", ".join(sorted({*rule[key]} & {*other[theirs]}))
    return f"rule {other['name']} has {names} among other services ({theirs}); name the same ones in both"
