# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The full report on a host, for ``sockmap_info`` and the fleet's audit. Reads only.

Works without root and on a host with nothing installed: what could not be read is named in ``unreadable``. Each part is
imported only when it is asked for, because an audit asks every host of a fleet.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence

from ..errors import SockredirError
from ..resource.snapshot import Snapshot
from ..state import manifest

PARTS = ("prerequisites", "programs", "attachments", "counters", "flows", "ports", "intercepts", "drift")
SCHEMA_VERSION = 1
PIN_DIR = "/sys/fs/bpf/sockredir"

Report = Dict[str, Any]


class Unreadable:
    """Collects what could not be read, and why."""

    def __init__(self) -> None:
        self.found: List[Dict[str, str]] = []

    def read(self, what: str, look: Callable[[], Any]) -> Any:
        """What ``look`` returns; None if it fails."""
        try:
            return look()
        except (SockredirError, OSError) as error:
            self.found.append({"what": what, "why": str(error)})
            return None


def gather(parts: Sequence[str], pin_dir: Optional[str], state_dir: str, max_flows: int = 1000) -> Report:
    """What is asked for of :data:`PARTS`, and always what the host is and what its manifest says.

    :param pin_dir: str, where the pins are; None: where the manifest says, else the usual place.
    :param max_flows: int, how many connections to list at most.
    """
    unreadable = Unreadable()
    snapshot = Snapshot(state_dir)
    document = unreadable.read("manifest", lambda: snapshot.document)
    pins = pin_dir or (document or {}).get("pin_dir") or PIN_DIR
    report: Report = {"schema_version": SCHEMA_VERSION, "pin_dir": pins, "state_dir": state_dir}
    report.update(_about(unreadable, document, snapshot, pins))
    if "prerequisites" in parts:
        report.update(_prerequisites(pins, snapshot))
    if "programs" in parts:
        report.update(_programs(unreadable, pins, document, snapshot))
    if "attachments" in parts:
        report.update(_attachments(unreadable, snapshot, document))
    if "counters" in parts:
        report.update(_counters(unreadable, pins))
    if "flows" in parts:
        report["flows"] = _flows(unreadable, pins, max_flows)
    if "ports" in parts:
        report["ports"] = _ports(unreadable, pins, document)
    if "intercepts" in parts:
        report["intercepts"] = _intercepts(unreadable, pins, document)
    if "drift" in parts:
        report["drift"] = unreadable.read("drift", lambda: _drift(snapshot))
    report["unreadable"] = unreadable.found
    return report


def _about(unreadable: Unreadable, document: Optional[manifest.Manifest], snapshot: Snapshot, pins: str) -> Report:
    from . import host

    damaged = unreadable.read("manifest", lambda: snapshot.damage) if not unreadable.found else None
    unknown = bool(unreadable.found) and document is None
    return {
        "host": host.about(snapshot),
        "enabled": None if unknown else document is not None,
        "manifest": host.manifest_summary(document, damaged),
        "cgroup": host.accelerated(document),
        "sources": unreadable.read(f"sources in {snapshot.state_dir}", lambda: host.sources(snapshot.state_dir)),
        "pin_directory": unreadable.read(f"directory {pins}", lambda: host.directory(pins)),
        "version": (document or {}).get("wanted", {}).get("version"),
    }


def _prerequisites(pin_dir: str, snapshot: Snapshot) -> Report:
    from ..host import advice, facts, prerequisites

    found = facts.observe(pin_dir, lambda: snapshot.mounts)
    return {
        "prerequisites": prerequisites.judge(found),
        "compilers": prerequisites.compilers(found),
        "advice": advice.judge(advice.observe(found)),
    }


def _programs(
    unreadable: Unreadable, pin_dir: str, document: Optional[manifest.Manifest], snapshot: Snapshot
) -> Report:
    from . import programs

    found = unreadable.read(f"pins in {pin_dir}", lambda: programs.pinned(pin_dir, snapshot))
    draining = unreadable.read("draining programs", lambda: programs.draining(document))
    return {**(found or programs.NOTHING), "draining": draining or []}


def _attachments(unreadable: Unreadable, snapshot: Snapshot, document: Optional[manifest.Manifest]) -> Report:
    from . import attachments

    return attachments.report(unreadable.read, snapshot, document)


def _counters(unreadable: Unreadable, pin_dir: str) -> Report:
    from . import counters

    found = unreadable.read(f"counters in {pin_dir}", lambda: counters.report(pin_dir))
    return found or counters.NOTHING


def _flows(unreadable: Unreadable, pin_dir: str, most: int) -> Optional[Dict[str, Any]]:
    from . import flows

    return unreadable.read(f"flows in {pin_dir}", lambda: flows.report(pin_dir, most))


def _ports(
    unreadable: Unreadable, pin_dir: str, document: Optional[manifest.Manifest]
) -> Optional[List[Dict[str, Any]]]:
    from . import ports

    return unreadable.read(
        f"ports in {pin_dir}", lambda: ports.report(pin_dir, (document or {}).get("calibration") or {})
    )


def _intercepts(
    unreadable: Unreadable, pin_dir: str, document: Optional[manifest.Manifest]
) -> Optional[Dict[str, Any]]:
    from ..datapath import live

    if not live.is_pinned(pin_dir, "intercepted"):
        return None
    from . import intercepts

    return unreadable.read(f"interception in {pin_dir}", lambda: intercepts.report(pin_dir, document))


def _drift(snapshot: Snapshot) -> List[Dict[str, Any]]:
    from ..operation import drift
    from ..operation.drift_kinds import reported

    return reported(drift.with_manifest(snapshot).steps)
