# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Implements ``sockredir_host``: each state from options to result."""

from __future__ import annotations

import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..calibration import record
from ..change import journal
from ..change.step import Plan, Step, diff, kind
from ..change.transaction import Watch
from ..datapath import budget
from ..datapath import settings as settings_form
from ..host import cgroups, files, install, metrics_timer, systemd
from ..resource.program import observe as program_observe
from ..resource.services import observe as services_observe
from ..resource.services import plan as services_plan
from ..resource.setup import change as setup
from ..resource.setup import documents
from ..resource.setup import observe as setup_observe
from ..resource.setup import plan as setup_plan
from ..resource.setup.plan import Wanted
from ..resource.snapshot import Snapshot
from ..state import manifest
from . import disable, restore

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
    return [{"kind": kind(step), **_change(step)} for step in steps]


def _change(step: Step) -> Dict[str, Any]:
    return {"subject": step.subject, "before": step.before, "after": step.after}


def returned(outcome: Outcome) -> Dict[str, Any]:
    """A module's return value."""
    shown = show(outcome.steps)
    return {"changed": bool(shown), "diff": diff(outcome.steps), "steps": shown, **outcome.result}


def present(options: Options, check: bool, watch: Optional[Watch] = None) -> Outcome:
    """Settings, library, tool, unit, drop-ins, manifest.

    :raises SockredirError: it cannot be had; the host is as it was.
    """
    wanted = wanted_of(options, check)
    with journal.change("enable", check, mode=options["mode"], committed=str(wanted.commit).lower()) as done:
        steps, waiting, sockets, wanted = setup.ensure(wanted, _paths(options), options["lock_timeout"], watch)
        done(steps)
    document = manifest.known(options["state_dir"])
    result = {
        "committed": bool(document and document["committed"]) if not check else wanted.commit,
        "settings": wanted.settings,
        "calibration": wanted.calibration,
        "files": _short(setup_plan.recorded(wanted), wanted),
        "draining": list(program_observe.draining(document)),
        "waiting_services": waiting,
        "remaining": [],
    }
    unmeasured = record.warning(wanted.calibration)
    warnings = [*_warnings(options, waiting), *_listening_elsewhere(sockets)]
    return Outcome(steps, result, warnings + ([unmeasured] if unmeasured else []))


def wanted_of(options: Options, check: bool) -> Wanted:
    """The options as the plan takes them.

    :raises SockredirError: one of them makes no sense on this host.
    """
    host = Snapshot(options["state_dir"])
    names = services_observe.names(options["services"], options["cgroup"], host)
    places = install.Places(options["prefix"])
    unit: Dict[str, Any] = {"prefix": options["prefix"], "unit_dir": options["unit_dir"], "services": list(names)}
    package = install.travelled()
    ours = {places.launcher: install.launcher(places, options["state_dir"])}
    if "documents" in options:
        ours.update(documents.wanted(options["documents"], places, package, host))
    if systemd.booted():
        section, units = _units(options, places, names, host, check)
        unit.update(section)
        ours.update(units)
    return Wanted(
        settings=settings_form.normal(dict(options, budget=_budget(options))),
        cgroup=options["cgroup"],
        places=places,
        package=package,
        files=ours,
        unit=unit,
        wanted=options["wanted"],
        commit=options["commit"],
        check=check,
        services=services_plan.Wanted(
            options["cgroup"], options["unit_dir"], names, options["restart_services"], check=check
        ),
    )


def _units(
    options: Options, places: install.Places, names: Sequence[str], host: Snapshot, check: bool
) -> Tuple[Dict[str, Any], Dict[str, files.File]]:
    """What the manifest says of the units, and their files by path."""
    unit_dir = options["unit_dir"]
    slice_name = systemd.slice_of(cgroups.relative(options["cgroup"], host.mounts))
    unit: Dict[str, Any] = {}
    ours: Dict[str, files.File] = {}
    if options["persist"]:
        unit.update(path=os.path.join(unit_dir, systemd.UNIT), link=systemd.wants_link(unit_dir))
        ours.update(systemd.unit_files(unit_dir, places.launcher, options["state_dir"], slice_name))
    if options["textfile_dir"]:
        metrics = metrics_timer.metrics_file(options["textfile_dir"], check)
        unit.update(metrics=metrics, timer=metrics_timer.paths(unit_dir))
        ours.update(metrics_timer.unit_files(unit_dir, places.launcher, metrics))
    for service in names:
        ours[systemd.drop_in_path(unit_dir, service)] = systemd.drop_in(slice_name or "")
    return unit, ours


def _budget(options: Options) -> int:
    text = options["memory_budget"]
    return budget.size(text, "memory_budget") if text else budget.default_budget()


def _paths(options: Options) -> setup_observe.Paths:
    return setup_observe.Paths(options["pin_dir"], options["state_dir"], options["unit_dir"])


def _short(recorded: Dict[str, str], wanted: Wanted) -> Dict[str, str]:
    """The files as an operator looks at them: the library as one."""
    package = wanted.places.package
    others = {path: text for path, text in recorded.items() if not path.startswith(package + "/")}
    return {**others, package: install.summary(wanted.package) or ""}


def _warnings(options: Options, waiting: Sequence[str]) -> List[str]:
    warnings = []
    if options["persist"] and not systemd.booted():
        warnings.append("systemd does not run on this host: nothing restores the redirection after a reboot")
    if options["textfile_dir"] and not systemd.booted():
        warnings.append("systemd does not run on this host: nothing writes metrics to textfile_dir")
    return warnings + _still_there(waiting)


def _still_there(waiting: Sequence[str]) -> List[str]:
    return [f"these services change cgroup at their next start: {', '.join(waiting)}"] if waiting else []


def _listening_elsewhere(sockets: Sequence[str]) -> List[str]:
    if not sockets:
        return []
    return [
        f"connections to listeners of {', '.join(sockets)} stay on TCP, since systemd makes them outside the slice: "
        "see 'Socket activation' in docs/operations.md"
    ]


def absent(options: Options, check: bool, watch: Optional[Watch] = None) -> Outcome:
    """Nothing of this collection on the host; live connections go on.

    :raises SockredirError: something cannot be removed; the host is as it was.
    """
    names = ("pin_dir", "state_dir", "unit_dir", "prefix", "cgroup", "restart_services")
    places = disable.Places(**{name: options[name] for name in names})
    if check:
        done = disable.preview(places)
    else:
        with journal.change("disable") as noted:
            done = disable.ensure(places, options["lock_timeout"], watch)
            noted(done.steps)
    result = {"draining": done.draining, "waiting_services": done.waiting, "remaining": done.remaining}
    return Outcome(done.steps, result, _still_there(done.waiting))


def rolled_back(options: Options, check: bool, watch: Optional[Watch] = None) -> Outcome:
    """What the host was before the last change; nothing, if there was nothing before it.

    :raises SockredirError: there is nothing to go back to, it is damaged, or the kernel refuses; all is as it was.
    """
    state_dir = options["state_dir"]
    document = manifest.known(state_dir)
    first = document is not None and not document["committed"] and not document.get(manifest.ROLLING_BACK)
    if first and not os.path.lexists(os.path.join(state_dir, manifest.PREVIOUS)):
        return absent(options, check, watch)
    if check:
        steps, document = restore.preview_rollback(state_dir)
    else:
        steps = restore.rollback(state_dir, watch, options["lock_timeout"])
        document = manifest.current(state_dir) or manifest.empty()
    result = {
        "committed": True,
        "settings": document["settings"],
        "calibration": document.get(record.SECTION, {}),
        "draining": list(program_observe.draining(document)),
        "waiting_services": [],
        "remaining": [],
    }
    return Outcome(steps, result, [])
