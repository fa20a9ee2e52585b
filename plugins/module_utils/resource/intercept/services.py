# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's part in interception: which steps put the services of rules into their slices. Pure, but for observe.

Each slice is planned as the accelerated one is (:mod:`..services`). Services that a rule names are restarted where
they have to move, and a proxy that does not run is started: until then the rule does not hold for them. Those that no
rule names any more are restarted only if the operator says so.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ...change.step import Plan, Step
from ...host import files, systemd
from ...host.files import File
from ..services import plan as services_plan
from ..setup.fingerprint import fingerprint
from ..setup.plan import file_step
from .placing import CGROUP_OF, Rule, Slice


class Wanted(NamedTuple):
    """:ivar accelerated: the cgroup that the slices are below, relative to the cgroup2 mount.
    :ivar slices: proxies' first.
    :ivar restart: whether services that no rule names any more may be restarted.
    :ivar check: what an earlier task would have installed may be missing.
    """

    unit_dir: str
    accelerated: str
    slices: Tuple[Slice, ...] = ()
    restart: bool = False
    check: bool = False


class Seen(NamedTuple):
    """:ivar booted: whether systemd runs this host.
    :ivar services: the wanted ones, and those that have one of our drop-ins for interception.
    :ivar drop_ins: that drop-in of each; None: it has none.
    """

    booted: bool = False
    services: Tuple[systemd.Service, ...] = ()
    drop_ins: Dict[str, Optional[File]] = {}


class Part(NamedTuple):
    """The steps for the services of one slice, and what is wanted of systemd there."""

    wanted: services_plan.Wanted
    steps: Plan


class Listening(NamedTuple):
    """:ivar ends: addresses with ports; one of them is enough.
    :ivar services: who was started.
    """

    ends: Tuple[str, ...]
    services: Tuple[str, ...]


def observe(wanted: Wanted) -> Seen:
    """What systemd says; reads only, and asks it only if there are any services.

    :raises SockredirError: systemd does not answer.
    """
    listed = [name for each in wanted.slices for name in each.services]
    ours = systemd.drop_ins(wanted.unit_dir, systemd.INTERCEPT_DROP_IN)
    names = sorted({*listed, *ours})
    booted = systemd.booted()
    drop_ins = {name: files.read(path_of(wanted, name)) for name in names}
    return Seen(booted, tuple(systemd.services(names)) if booted else (), drop_ins)


def path_of(wanted: Wanted, service: str) -> str:
    """Its drop-in."""
    return systemd.drop_in_path(wanted.unit_dir, service, systemd.INTERCEPT_DROP_IN)


def lacks(rule: Rule, seen: Seen) -> List[str]:
    """What is missing on a host for the services of a rule, each in one line."""
    found = []
    for key in CGROUP_OF:
        unknown = [each.name for each in seen.services if each.name in rule[key] and not each.known]
        if rule[key] and not seen.booted:
            found.append(f"{key}: systemd does not run on this host; set {CGROUP_OF[key]} instead")
        elif unknown:
            found.append(f"{key}: systemd does not know {', '.join(unknown)}; install it, or correct the name")
    return found


def proxies(wanted: Wanted, seen: Seen, rules: Sequence[Rule]) -> List[Part]:
    """Have them in their slices and listening, before anything is sent to them."""
    return [_part(each, wanted, seen, rules) for each in wanted.slices if each.proxy]


def apps(wanted: Wanted, seen: Seen) -> List[Part]:
    """Have the others in their slices, and out of them who is not named any more."""
    found = [_part(each, wanted, seen, ()) for each in wanted.slices if not each.proxy]
    return [*found, _leaving(wanted, seen)]


def waiting(wanted: Wanted, seen: Seen) -> List[str]:
    """Services that leave their slice at their next start."""
    leaving = _leaving(wanted, seen)
    return [] if wanted.restart else _waiting(leaving.wanted, seen, _released(wanted, seen))


def recorded(wanted: Wanted) -> Dict[str, str]:
    """What the manifest says of the drop-ins."""
    return {
        path_of(wanted, name): fingerprint(systemd.drop_in(each.name))
        for each in wanted.slices
        for name in each.services
    }


def _part(each: Slice, wanted: Wanted, seen: Seen, rules: Sequence[Rule]) -> Part:
    file = systemd.drop_in(each.name)
    steps = [
        file_step(path_of(wanted, name), seen.drop_ins.get(name), file, {})
        for name in each.services
        if seen.drop_ins.get(name) != file
    ]
    ours = _ours(each, wanted)
    steps += services_plan.plan(ours, _there(each, seen), [step.subject for step in steps])
    if each.proxy:
        steps += _starts(each, seen)
        steps += _listens(each, rules, [step.subject for step in steps if step.verb in ("restart", "start")])
    return Part(ours, steps)


def _ours(each: Slice, wanted: Wanted) -> services_plan.Wanted:
    return services_plan.Wanted(each.cgroup, wanted.unit_dir, each.services, restart=True, check=wanted.check)


def _there(each: Slice, seen: Seen) -> services_plan.Observed:
    there = tuple(service for service in seen.services if service.name in each.services)
    return services_plan.Observed(seen.booted, systemd.slice_of(each.cgroup), each.cgroup, there)


def _starts(each: Slice, seen: Seen) -> Plan:
    stopped = [one.name for one in seen.services if one.name in each.services and one.known and not one.cgroup]
    return [Step("start", name, "stopped", "started") for name in stopped]


def _listens(each: Slice, rules: Sequence[Rule], started: Sequence[str]) -> Plan:
    """After a start, for each rule whose proxy it is."""
    return [
        Step("listen", f"rule {rule['name']}: its proxy", "started", "listening", _listening(rule, started))
        for rule in rules
        if started and rule["to"] and rule["proxy_cgroup"] == each.cgroup
    ]


def _listening(rule: Rule, started: Sequence[str]) -> Listening:
    return Listening(tuple(rule["to"]), tuple(started))


def _released(wanted: Wanted, seen: Seen) -> List[str]:
    listed = {name for each in wanted.slices for name in each.services}
    return sorted(name for name, file in seen.drop_ins.items() if file and name not in listed)


def _leaving(wanted: Wanted, seen: Seen) -> Part:
    released = _released(wanted, seen)
    own = services_plan.Wanted(wanted.accelerated, wanted.unit_dir, restart=wanted.restart, check=wanted.check)
    steps: Plan = [file_step(path_of(wanted, name), seen.drop_ins[name], None, {}) for name in released]
    if steps:
        steps.append(Step("reload", "systemd", "the unit files as they were", "the unit files as they are now"))
    if wanted.restart:
        steps += [Step("restart", name, "running", "restarted") for name in _waiting(own, seen, released)]
    return Part(own, steps)


def _waiting(own: services_plan.Wanted, seen: Seen, released: Sequence[str]) -> List[str]:
    running = [service for service in seen.services if service.name in released]
    return [service.name for service in running if service.inside(own.cgroup)]
