# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps put settings, library, launcher, unit and drop-ins on a host, and commit the manifest. Pure."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, NamedTuple, Optional

from ...change.step import Plan, Step
from ...datapath.settings import Found
from ...errors import SockredirError
from ...host import install, systemd
from ...host.files import File
from ...state.manifest import Manifest
from ..metrics import plan as metrics_plan
from ..services import plan as services_plan
from ..settings import plan as settings_plan
from .fingerprint import file_kind, fingerprint


class Wanted(NamedTuple):
    """What is to be on the host.

    :ivar settings: in the form of :func:`...datapath.settings.normal`.
    :ivar cgroup: the accelerated cgroup, as the operator names it.
    :ivar package: the library: text by path below the package.
    :ivar files: launcher, unit, drop-ins by path.
    :ivar unit: the manifest's section on systemd: ``prefix``, ``unit_dir``, ``services``; where the unit is enabled its
        ``path`` and ``link``; where there is a timer for metrics the file that it has written, ``metrics``, and the
        paths of its unit files, ``timer``.
    :ivar wanted: what the caller wants kept.
    :ivar commit: whether this makes the change final.
    :ivar check: what an earlier task would have made may be missing.
    :ivar services: what systemd is to make of the files; None: nothing.
    :ivar calibration: where ``demote_below`` comes from, see :mod:`...calibration.record`.
    """

    settings: Dict[str, Any]
    cgroup: str
    places: install.Places
    package: Dict[str, str]
    files: Dict[str, File]
    unit: Dict[str, Any]
    wanted: Dict[str, Any]
    commit: bool = True
    check: bool = False
    services: Optional[services_plan.Wanted] = None
    calibration: Dict[str, Any] = {}


class Observed(NamedTuple):
    """What is there.

    :ivar document: what can be understood of the manifest.
    :ivar damage: what is wrong with it.
    :ivar previous_damage: why a rollback would fail; None if it would not, or if there is none.
    :ivar settings: the settings map; None if there is none.
    :ivar package: the library on the host.
    :ivar stale: directories of other versions of it.
    :ivar files: by path, those of :attr:`Wanted.files` and what an earlier run has put there.
    :ivar services: what systemd says.
    :ivar metrics: the same of the timer for metrics.
    """

    document: Optional[Manifest]
    damage: Optional[str]
    previous_damage: Optional[str]
    settings: Optional[Found]
    package: Dict[str, str]
    stale: List[str]
    files: Dict[str, Optional[File]]
    services: services_plan.Observed = services_plan.Observed()
    metrics: metrics_plan.Observed = metrics_plan.Observed()


class Library(NamedTuple):
    """:ivar files: text by path below the package."""

    files: Dict[str, str]


class Content(NamedTuple):
    """:ivar file: what is to be at the path; None: nothing."""

    file: Optional[File]


def plan(wanted: Wanted, observed: Observed) -> Plan:
    """The steps from what is there to what is wanted; empty if that is the same.

    :raises SockredirError: nothing has been loaded yet.
    """
    _refuse(wanted, observed)
    steps = settings_plan.steps(wanted.settings, observed.settings) + _package_steps(wanted, observed)
    metrics = wanted.unit.get("metrics")
    steps += metrics_plan.before_files(metrics, observed.metrics)
    files_changed = _file_steps(wanted, observed)
    changed = [step.subject for step in files_changed]
    steps += files_changed
    if wanted.services:
        steps += services_plan.plan(wanted.services, observed.services, changed)
    timer_changed = any(path in wanted.unit.get("timer", ()) for path in changed)
    steps += metrics_plan.after_files(metrics, observed.metrics, timer_changed)
    return (
        steps + _manifest_steps(wanted, observed) + _stale_steps(wanted, observed)
    )  # those last: they cannot be undone


def _refuse(wanted: Wanted, observed: Observed) -> None:
    if observed.settings is None and not wanted.check:
        raise SockredirError(
            "there is no settings map to write to",
            "load the programs first, with sockmap_program, into the same pin_dir",
        )
    for option in ("prefix", "unit_dir"):
        before = observed.document["unit"].get(option) if observed.document else None
        if before and before != wanted.unit[option]:
            raise SockredirError(
                f"{option}: this host was set up with {before}, not {wanted.unit[option]}",
                "keep it, or run state: absent with the old one first",
            )


def _package_steps(wanted: Wanted, observed: Observed) -> Plan:
    if observed.package == wanted.package:
        return []
    before, after = install.summary(observed.package), install.summary(wanted.package)
    library = Library(wanted.package)
    return [Step("package", wanted.places.package, before, after, library, "file_changed")]


def _stale_steps(wanted: Wanted, observed: Observed) -> Plan:
    replaced = [wanted.places.package] if observed.package and observed.package != wanted.package else []
    if not observed.stale + replaced:
        return []
    return [Step("package_stale", wanted.places.library, "older versions of the library", None)]


def _file_steps(wanted: Wanted, observed: Observed) -> Plan:
    paths = sorted(set(wanted.files) | set(observed.files))
    return [
        file_step(path, observed.files.get(path), wanted.files.get(path), wanted.unit)
        for path in paths
        if observed.files.get(path) != wanted.files.get(path)
    ]


def file_step(path: str, before: Optional[File], after: Optional[File], unit: Dict[str, Any]) -> Step:
    """Write or remove a file."""
    shown = [found.show() if found else None for found in (before, after)]
    return Step("file", path, shown[0], shown[1], Content(after), file_kind(path, unit))


def document_after(wanted: Wanted, document: Manifest) -> None:
    """Write our sections into a manifest."""
    document["settings"] = wanted.settings
    document["cgroup"] = wanted.cgroup
    kept = {path: text for path, text in document.get("files", {}).items() if systemd.is_of_rules(path)}
    document["files"] = {**recorded(wanted), **kept}
    document["unit"] = wanted.unit
    document["wanted"] = wanted.wanted
    document["calibration"] = wanted.calibration


def recorded(wanted: Wanted) -> Dict[str, str]:
    """What the manifest says of the files: their SHA-256, or where a symlink leads."""
    known = {f"{wanted.places.package}/{name}": File(text) for name, text in wanted.package.items()}
    known.update(wanted.files)
    return {path: fingerprint(found) for path, found in sorted(known.items())}


def _manifest_steps(wanted: Wanted, observed: Observed) -> Plan:
    steps: Plan = []
    if observed.previous_damage:
        steps.append(
            Step("forget_previous", "manifest: previous", observed.previous_damage, None, kind="object_changed")
        )
    before = observed.document
    after: Dict[str, Any] = copy.deepcopy(before) if before else {}
    document_after(wanted, after)
    if observed.damage:
        steps.append(Step("manifest", "manifest", observed.damage, "written again", kind="manifest_changed"))
    elif before is None or after != before or (wanted.commit and not before["committed"]):
        after["committed"] = wanted.commit
        steps.append(_manifest_step(before or {}, after))
    return steps


def _manifest_step(before: Manifest, after: Manifest) -> Step:
    keys = [key for key in sorted(after) if before.get(key) != after[key] and key != "files"]
    return Step("manifest", "manifest", {key: before.get(key) for key in keys}, {key: after[key] for key in keys})
