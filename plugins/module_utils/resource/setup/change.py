# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put settings, library, launcher, unit and drop-ins on a host and commit the manifest: observe, plan, apply."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, NamedTuple, Optional

from ...change.step import Plan
from ...change.transaction import Handler, Watch, apply
from ...host import cgroups
from ...state import lock, manifest
from ..attachment import apply as attachment_apply
from ..attachment import observe as attachment_observe
from ..attachment import plan as attachment_plan
from ..services import observe as services_observe
from ..services import plan as services_plan
from ..snapshot import Snapshot
from . import plan as planning
from .apply import handlers
from .observe import Paths, observe
from .plan import Observed, Wanted
from .settle import settled


class Result(NamedTuple):
    """:ivar waiting: services that change cgroup at their next start.
    :ivar sockets: socket units that make the listeners of services outside the slice.
    :ivar wanted: with what calibration has found.
    """

    steps: Plan
    waiting: List[str]
    sockets: List[str]
    wanted: Wanted


def ensure(wanted: Wanted, paths: Paths, wait_seconds: float, watch: Optional[Watch] = None) -> Result:
    """Make it so, or with ``wanted.check`` say what that takes.

    :raises SockredirError: it cannot be had; the host is as it was.
    """
    if wanted.check:
        host = Snapshot(paths.state_dir)
        wanted = settled(wanted, host)
        observed = observe(wanted, paths, host)
        steps, sockets = _plan(wanted, paths, host, observed, {}), services_plan.listening_elsewhere(observed.services)
        return Result(steps, _waiting(wanted, observed.services), sockets, wanted)
    with lock.hold(paths.state_dir, wait_seconds):
        host = Snapshot(paths.state_dir)
        wanted = settled(wanted, host)
        observed = observe(wanted, paths, host)
        work = handlers(wanted, paths)
        steps = _plan(wanted, paths, host, observed, work)
        with manifest.unchanged_on_failure(paths.state_dir):
            apply(steps, work, watch)
    host.refresh()
    after = services_observe.observe(wanted.services, host) if steps and wanted.services else observed.services
    waiting = services_plan.waiting(wanted.services, after) if wanted.services else []
    return Result(steps, waiting, services_plan.listening_elsewhere(after), wanted)


def _waiting(wanted: Wanted, observed: services_plan.Observed) -> List[str]:
    """Which services a run would leave where they are."""
    if wanted.services is None or wanted.services.restart:
        return []
    return services_plan.waiting(wanted.services, observed)


def _plan(wanted: Wanted, paths: Paths, host: Snapshot, observed: Observed, work: Dict[str, Handler]) -> Plan:
    """:param work: gets the handlers of the attachments' steps."""
    steps: Plan = []
    for entry in _moved_away(host, wanted):
        taken_off = attachment_observe.wanted_of(entry)._replace(present=False)
        prefix = f"{taken_off.program} {taken_off.target} "
        own = attachment_apply.handlers(taken_off, paths.state_dir)
        work.update({prefix + verb: handler for verb, handler in own.items()})
        planned = attachment_plan.plan(taken_off, attachment_observe.observe(taken_off, host))
        steps += [replace(step, verb=prefix + step.verb) for step in planned]
    return steps + planning.plan(wanted, observed)


def _moved_away(host: Snapshot, wanted: Wanted) -> List[Dict[str, Any]]:
    """The attachments to the cgroup that was accelerated before if that is another now."""
    document = host.document
    if not document or document.get("cgroup") in (None, "", wanted.cgroup):
        return []
    before = document["cgroup"]
    old, new = (cgroups.resolve(path, host.mounts) for path in (before, wanted.cgroup))
    return [entry for entry in document["attachments"] if entry["cgroup"] == old != new]
