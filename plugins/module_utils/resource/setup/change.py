# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put settings, library, launcher, unit and drop-ins on a host and commit the manifest: observe, plan, apply."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Dict, List, NamedTuple, Optional

from ...change.step import Plan, Step
from ...change.transaction import Handler, Undo, Watch, apply
from ...datapath import live
from ...datapath import settings as settings_form
from ...host import cgroups, files, install
from ...state import lock, manifest
from ..attachment import change as attachment
from ..attachment import plan as attachment_plan
from ..services import change as services
from ..services import plan as services_plan
from ..snapshot import Snapshot
from . import plan as planning
from .plan import Seen, Wanted


class Paths(NamedTuple):
    """Where things are on this host."""

    pin_dir: str
    state_dir: str
    unit_dir: str


class Result(NamedTuple):
    """:ivar waiting: services that change cgroup at their next start."""

    steps: Plan
    waiting: List[str]


def ensure(wanted: Wanted, paths: Paths, wait_seconds: float, watch: Optional[Watch] = None) -> Result:
    """Make it so, or with ``wanted.pretend`` say what that takes.

    :raises SockredirError: it cannot be had; the host is as it was.
    """
    if wanted.pretend:
        host = Snapshot(paths.state_dir)
        seen = observe(wanted, paths, host)
        return Result(_plan(wanted, paths, host, seen, {}), _waiting(wanted, seen.services))
    with lock.hold(paths.state_dir, wait_seconds):
        host = Snapshot(paths.state_dir)
        seen = observe(wanted, paths, host)
        work = handlers(wanted, paths)
        steps = _plan(wanted, paths, host, seen, work)
        with manifest.unchanged_on_failure(paths.state_dir):
            apply(steps, work, watch)
    host.refresh()
    after = services.observe(wanted.services, host) if steps and wanted.services else seen.services
    return Result(steps, services_plan.waiting(wanted.services, after) if wanted.services else [])


def _waiting(wanted: Wanted, seen: services_plan.Seen) -> List[str]:
    """Which services a run would leave where they are."""
    if wanted.services is None or wanted.services.restart:
        return []
    return services_plan.waiting(wanted.services, seen)


def _plan(wanted: Wanted, paths: Paths, host: Snapshot, seen: Seen, work: Dict[str, Handler]) -> Plan:
    """:param work: gets the handlers of the attachments' steps."""
    steps: Plan = []
    for entry in _moved_away(host, wanted):
        taken_off = attachment.wish(entry)._replace(present=False)
        prefix = f"{taken_off.program} {taken_off.target} "
        own = attachment.handlers(taken_off, paths.state_dir)
        work.update({prefix + verb: handler for verb, handler in own.items()})
        planned = attachment_plan.plan(taken_off, attachment.observe(taken_off, host))
        steps += [replace(step, verb=prefix + step.verb) for step in planned]
    return steps + planning.plan(wanted, seen)


def _moved_away(host: Snapshot, wanted: Wanted) -> List[Dict[str, Any]]:
    """The attachments to the cgroup that was accelerated before, where that is another now."""
    document = host.document
    if not document or document.get("cgroup") in (None, "", wanted.cgroup):
        return []
    before = document["cgroup"]
    old, new = (cgroups.resolve(path, host.mounts) for path in (before, wanted.cgroup))
    return [entry for entry in document["attachments"] if entry["cgroup"] == old != new]


def observe(wanted: Wanted, paths: Paths, host: Snapshot) -> Seen:
    """What is there of it; reads only."""
    document = host.document
    known = set(wanted.files) | set(_old_files(document, wanted))
    return Seen(
        document=document,
        damage=host.damage,
        previous_damage=host.previous_damage,
        settings=live.read_settings(paths.pin_dir),
        package=install.installed(wanted.places),
        stale=install.stale(wanted.places),
        files={path: files.read(path) for path in sorted(known)},
        services=services.observe(wanted.services, host) if wanted.services else services_plan.Seen(),
    )


def _old_files(document: Optional[manifest.Manifest], wanted: Wanted) -> List[str]:
    """What an earlier run has put on the host, the library apart."""
    if document is None:
        return []
    old_package = document["unit"].get("package", wanted.places.package)
    return [path for path in document["files"] if not path.startswith((old_package + "/", wanted.places.package + "/"))]


def handlers(wanted: Wanted, paths: Paths) -> Dict[str, Handler]:
    """The handler of each verb that :func:`.plan.plan` uses."""
    own = _Handlers(wanted, paths)
    return {
        "settings": own.settings,
        "package": own.package,
        "package_stale": own.package_stale,
        "file": own.file,
        "forget_previous": own.forget_previous,
        "manifest": own.manifest,
        **(own.services.handlers() if own.services else {}),
    }


class _Handlers:
    def __init__(self, wanted: Wanted, paths: Paths) -> None:
        self.wanted = wanted
        self.paths = paths
        self.services = services.Changes(wanted.services) if wanted.services else None

    def settings(self, _step: Step) -> Undo:
        return write_settings(self.paths, self.wanted.settings)

    def package(self, step: Step) -> Undo:
        return install.install(self.wanted.places, step.need(planning.Library).files)

    def package_stale(self, _step: Step) -> Undo:
        install.remove_stale(self.wanted.places)
        return None

    def file(self, step: Step) -> Undo:
        undo = files.change(step.subject, step.need(planning.Content).file, self._keep(step.subject))
        return self.services.guard(step.subject, undo) if self.services else undo

    def _keep(self, path: str) -> str:
        return keep_of(path, self.paths.unit_dir, self.wanted.places.prefix)

    def forget_previous(self, _step: Step) -> Undo:
        manifest.forget_previous(self.paths.state_dir)
        return None

    def manifest(self, _step: Step) -> Undo:
        manifest.edit(self.paths.state_dir, lambda document: planning.document_after(self.wanted, document))
        if self.wanted.commit:
            manifest.commit(self.paths.state_dir)
        return None


def write_settings(paths: Paths, wanted: Dict[str, object]) -> Undo:
    """Tell the programs what is wanted; returns what tells them the old."""
    raw = live.write_settings(paths.pin_dir, paths.state_dir, settings_form.to_layout(wanted))
    return lambda: live.restore_settings(paths.pin_dir, paths.state_dir, raw)


def keep_of(path: str, *roots: str) -> str:
    """The directory of ours or the host's that stays when a file below it goes: the nearest root, else its own."""
    above = [root for root in roots if path.startswith(root.rstrip("/") + "/")]
    return max(above, key=len, default=os.path.dirname(path))
