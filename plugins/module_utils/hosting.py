# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``sockredir_host`` does with its options: each state from options to result."""

from __future__ import annotations

import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import lifecycle, program, removal, setup
from .apply import Watch
from .errors import SockredirError
from .host import cgroups, install, memory, mounts, systemd
from .plan import settings as settings_form
from .plan import setup as setup_plan
from .plan.model import Plan, Step, diff
from .plan.setup import Wanted
from .state import manifest

Options = Dict[str, Any]


class Outcome(NamedTuple):
    """:ivar steps: what was done, or would be.
    :ivar result: what the module returns beside ``changed``, ``diff`` and ``steps``.
    :ivar warnings: one line each.
    """

    steps: Plan
    result: Dict[str, Any]
    warnings: List[str]


def show(steps: Plan) -> List[Dict[str, Any]]:
    """A plan as a module returns it."""
    return [{"kind": step.kind or step.verb.rpartition(" ")[2], **_change(step)} for step in steps]


def _change(step: Step) -> Dict[str, Any]:
    return {"subject": step.subject, "before": step.before, "after": step.after}


def returned(outcome: Outcome) -> Dict[str, Any]:
    """A module's return value."""
    shown = show(outcome.steps)
    return {"changed": bool(shown), "diff": diff(outcome.steps), "steps": shown, **outcome.result}


def present(options: Options, pretend: bool, watch: Optional[Watch] = None) -> Outcome:
    """Settings, library, tool, unit, drop-ins, manifest.

    :raises SockredirError: it cannot be had; the host is as it was.
    """
    services = _Services(options)
    wanted = wish(options, pretend, services.listed)
    services.look(pretend)
    steps = setup.ensure(wanted, _paths(options), options["lock_timeout"], watch)
    waiting, restarts = services.settle(steps, pretend)
    document = manifest.known(options["state_dir"])
    result = {
        "committed": bool(document and document["committed"]) if not pretend else wanted.commit,
        "settings": wanted.settings,
        "files": _short(setup_plan.recorded(wanted), wanted),
        "draining": list(program.draining(document)),
        "waiting_services": waiting,
        "remaining": [],
    }
    return Outcome(steps + restarts, result, _warnings(options, waiting))


def wish(options: Options, pretend: bool, services: Sequence[str]) -> Wanted:
    """The options as the plan takes them."""
    places = install.Places(options["prefix"])
    unit = {"prefix": options["prefix"], "unit_dir": options["unit_dir"], "services": list(services)}
    ours = {places.launcher: install.launcher(places, options["state_dir"])}
    slice_name = _slice(options)
    if options["persist"] and systemd.booted():
        made = systemd.unit_files(options["unit_dir"], places.launcher, options["state_dir"], slice_name)
        unit.update(path=os.path.join(options["unit_dir"], systemd.UNIT), link=systemd.wants_link(options["unit_dir"]))
        ours.update(made)
    for service in services:
        ours[systemd.drop_in_path(options["unit_dir"], service)] = systemd.drop_in(slice_name or "")
    return Wanted(
        settings=settings_form.normal(dict(options, budget=_budget(options))),
        cgroup=options["cgroup"],
        places=places,
        package=install.travelled(),
        files=ours,
        unit=unit,
        wanted=options["wanted"],
        commit=options["commit"],
        pretend=pretend,
    )


def _budget(options: Options) -> int:
    text = options["memory_budget"]
    return memory.size(text, "memory_budget") if text else memory.default_budget()


def _paths(options: Options) -> setup.Paths:
    return setup.Paths(options["pin_dir"], options["state_dir"], options["unit_dir"])


def _relative(cgroup: str) -> str:
    """A cgroup relative to the cgroup2 mount; ``/`` is the root."""
    known = mounts.read()
    root = cgroups.resolve("/", known)
    return cgroups.resolve(cgroup, known)[len(root.rstrip("/")) :] or "/"


def _slice(options: Options) -> Optional[str]:
    return systemd.slice_of(_relative(options["cgroup"])) if systemd.booted() else None


class _Services:
    """The services that are to be in the accelerated slice, and those that leave it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        # Everything is in the root cgroup already.
        everywhere = options["services"] and _relative(options["cgroup"]) == "/"
        self.listed = [] if everywhere else sorted({systemd.service_name(name) for name in options["services"]})
        self.released: List[str] = []

    def look(self, pretend: bool) -> None:
        """:raises SockredirError: the listed services cannot be put there."""
        if self.listed and not systemd.booted():
            raise SockredirError("services: systemd does not run on this host", "leave services empty")
        if self.listed and _slice(self.options) is None:
            raise SockredirError(
                f"services: the cgroup {self.options['cgroup']} is no slice's, so no service can be put there",
                "set cgroup to a slice, such as sockredir.slice",
            )
        unknown = [service.name for service in systemd.services(self.listed) if not service.known]
        if unknown and not pretend:
            raise SockredirError(
                f"services: systemd knows no {', '.join(unknown)}", "install it first, or mend the name"
            )
        self.released = [name for name in systemd.drop_ins(self.options["unit_dir"]) if name not in self.listed]

    def settle(self, steps: Plan, pretend: bool) -> Tuple[List[str], Plan]:
        """Have systemd read what has changed, restart where that is allowed.

        :returns: who still waits for a restart, and the restarts as steps.
        """
        slice_name = _slice(self.options)
        if slice_name is None:
            return [], []
        if not pretend and any(self._is_unit(step) for step in steps):
            systemd.reload()
            if self.options["state"] == "present":
                systemd.start_slice(slice_name)
        waiting = self.waiting()
        if not waiting or not self.options["restart_services"]:
            return waiting, []
        if not pretend:
            systemd.restart(waiting)
        return self.waiting(), [Step("restart", name, "running", "restarted") for name in waiting]

    def _is_unit(self, step: Step) -> bool:
        return step.subject.startswith(self.options["unit_dir"].rstrip("/") + "/")

    def waiting(self) -> List[str]:
        cgroup = cgroups.resolve(self.options["cgroup"], mounts.read())
        names = sorted(set(self.listed) | set(systemd.running_in(cgroup)) | set(self.released))
        return systemd.waiting(systemd.services(names), self.listed, self.released, _relative(self.options["cgroup"]))


def _short(recorded: Dict[str, str], wanted: Wanted) -> Dict[str, str]:
    """The files as an operator looks at them: the library as one."""
    package = wanted.places.package
    others = {path: text for path, text in recorded.items() if not path.startswith(package + "/")}
    return {**others, package: install.summary(wanted.package) or ""}


def _warnings(options: Options, waiting: Sequence[str]) -> List[str]:
    warnings = []
    if options["persist"] and not systemd.booted():
        warnings.append("systemd does not run on this host: nothing restores the redirection after a reboot")
    if waiting:
        warnings.append(f"these services change cgroup at their next start: {', '.join(waiting)}")
    return warnings


def absent(options: Options, pretend: bool, watch: Optional[Watch] = None) -> Outcome:
    """Nothing of ours on the host; live connections go on.

    :raises SockredirError: something cannot be removed; the host is as it was.
    """
    names = ("pin_dir", "state_dir", "unit_dir", "prefix", "cgroup")
    places = removal.Places(**{name: options[name] for name in names})
    if pretend:
        steps = removal.preview(places)
        steps += _idle_slice(options, steps)
        return Outcome(steps, {"draining": [], "waiting_services": [], "remaining": []}, [])
    services = _Services(dict(options, services=[]))
    services.look(pretend)
    done = removal.ensure(places, options["lock_timeout"], watch)
    waiting, restarts = services.settle(done.steps, pretend)
    idle = _idle_slice(options, done.steps)
    _stop_slice(options, idle)
    result = {"draining": done.draining, "waiting_services": waiting, "remaining": done.remaining}
    return Outcome(done.steps + restarts + idle, result, [])


def _idle_slice(options: Options, steps: Plan) -> Plan:
    """The cgroup of a slice without a unit file that nothing is in any more: an earlier run had to leave it.

    :param steps: what else is done; they may say so themselves.
    """
    slice_name = _slice(options)
    if slice_name is None:
        return []
    path = cgroups.resolve(options["cgroup"], mounts.read())
    if not cgroups.removable([path]) or systemd.has_unit_file(slice_name):
        return []
    return [] if path in {step.subject for step in steps} else [Step("stop_slice", path, "cgroup", None)]


def _stop_slice(options: Options, idle: Plan) -> None:
    """Have systemd forget a slice that is idle, or whose cgroup has gone."""
    slice_name = _slice(options)
    if slice_name and (idle or not os.path.isdir(cgroups.resolve(options["cgroup"], mounts.read()))):
        systemd.stop_slice(slice_name)


def rolled_back(options: Options, pretend: bool, watch: Optional[Watch] = None) -> Outcome:
    """What the host was before the last change; where there was nothing before it, nothing.

    :raises SockredirError: there is nothing to go back to, it is damaged, or the kernel refuses; all is as it was.
    """
    state_dir = options["state_dir"]
    document = manifest.known(state_dir)
    first = document is not None and not document["committed"] and not document.get(manifest.ROLLING_BACK)
    if first and not os.path.lexists(os.path.join(state_dir, manifest.PREVIOUS)):
        return absent(options, pretend, watch)
    if pretend:
        steps, document = lifecycle.preview_rollback(state_dir), manifest.rollback_target(state_dir)
    else:
        steps = lifecycle.rollback(state_dir, watch, options["lock_timeout"])
        document = manifest.current(state_dir) or manifest.empty()
    result = {
        "committed": True,
        "settings": document["settings"],
        "draining": list(program.draining(document)),
        "waiting_services": [],
        "remaining": [],
    }
    return Outcome(steps, result, [])
