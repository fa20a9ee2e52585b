# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Present what was learned: the report, the role's variables, a table. Pure functions."""

from __future__ import annotations

import re
from typing import Any, Container, Dict, List, Mapping, Sequence

from ..datapath.layout import MAX_PORTS
from . import groups, speeds
from .verdict import ACCELERATE, LEAVE

SCHEMA_VERSION = 1

Report = Dict[str, Any]
_SERVICE = re.compile(r"[\w@.:\\-]+\.service$")
_SOURCES = {
    speeds.ENABLED: "gain: from what was measured on this host when it was enabled",
    speeds.MEASURED: "gain: from what was measured on this host just now",
    speeds.TABLE: "gain: an estimate, measured on another machine",
}
_LINE = "{:>5}  {:<10}  {:>6}  {:>11}  {:>10}  {:<24}  {}"


def make(ports: List[Report], paths: Mapping[int, str], passing: Container[int], about: Report) -> Report:
    """The whole report.

    :param ports: as :func:`.verdict.ports` returns them; completed here by the units that programs run in.
    :param paths: directory of each cgroup, by its id.
    :param passing: ports that do not belong into a configuration, see :func:`.connections.passing`.
    :param about: what else there is to say: ``seconds``, ``watched``, ``cgroup``, ``lost``, ``unseen``, ``speeds``.
    """
    for entry in ports:
        entry["passing"] = entry["port"] in passing
        for detail in entry["details"]:
            detail["cgroup"] = paths.get(detail.pop("cgroup_id"))
            detail["unit"] = groups.unit(detail["cgroup"] or "")
    return {"schema_version": SCHEMA_VERSION, **about, "ports": ports, "variables": variables(ports)}


def variables(ports: Sequence[Report]) -> Report:
    """The role's variables that do what the verdicts say, for ports that will be there again.

    :param ports: those with most bytes first; the programs take only so many.
    """
    ports = [entry for entry in ports if not entry["passing"]]
    chosen = _with_verdict(ports, ACCELERATE)
    wanted: Report = {"sockredir_ports": chosen, "sockredir_exclude_ports": _with_verdict(ports, LEAVE)}
    if not chosen:
        # An empty list of ports means all of them.
        wanted["sockredir_mode"] = "observe"
    services = _services(ports)
    if services:
        wanted["sockredir_services"] = services
    return wanted


def _with_verdict(ports: Sequence[Report], verdict: str) -> List[int]:
    return sorted([entry["port"] for entry in ports if entry["verdict"] == verdict][:MAX_PORTS])


def _services(ports: Sequence[Report]) -> List[str]:
    """The services at either end of an accelerated port."""
    units = {
        detail["unit"]
        for entry in ports
        if entry["verdict"] == ACCELERATE
        for detail in entry["details"]
        if detail["local"] and detail["unit"]
    }
    return sorted(unit for unit in units if _SERVICE.match(unit))


def yaml(wanted: Mapping[str, Any]) -> List[str]:
    """Variables as YAML. Values are words, or lists of numbers or words that need no quotes."""
    lines = ["---"]
    for name, value in wanted.items():
        if not isinstance(value, list) or not value:
            lines.append(f"{name}: {value}")
        else:
            lines += [f"{name}:"] + [f"  - {item}" for item in value]
    return lines


def table(report: Report, size: Any) -> List[str]:
    """For people: a line for each port.

    :param size: function that shows a number of bytes.
    """
    lines = [_LINE.format("port", "verdict", "gain", "connections", "bytes", "programs", "why")]
    for entry in report["ports"]:
        ratio = f"{entry['gain']:.2f}x" if entry["gain"] else ""
        names = ", ".join(entry["programs"])
        numbers = entry["connections"], size(entry["bytes"])
        lines.append(_LINE.format(entry["port"], entry["verdict"], ratio, *numbers, names, entry["why"]))
    if not report["ports"]:
        lines = [f"no TCP connection was seen in {report['seconds']:.0f} s"]
    lines += _notes(report)
    return lines


def _notes(report: Report) -> List[str]:
    """What a reader of the table should know of it."""
    lines = []
    if any(entry["gain"] for entry in report["ports"]):
        problem = report["speeds"]["problem"]
        lines.append(_SOURCES[report["speeds"]["source"]] + (f", because of this: {problem}" if problem else ""))
    if report["watched"] < 1:
        share = f"{100 * report['watched']:.0f} %"
        lines.append(f"messages were looked at for {share} of the time: there were too many to look at all of them")
    if report["unseen"]:
        lines.append(f"not seen on this kernel: {', '.join(report['unseen'])} (limits.md)")
    if report["lost"]:
        lines.append(f"{report['lost']} connections were not counted: there were too many at once")
    return lines
