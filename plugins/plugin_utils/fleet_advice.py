# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Combine what the hosts of a fleet have learned. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Report = dict[str, Any]

SCHEMA_VERSION = 1
#: From the one that a single host is enough for.
VERDICTS = ("leave", "accelerate", "no-gain")


def advise(results: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> Report:
    """One report on all hosts.

    :param results: what M(ebpf.sockredir.sockredir_learn) returned, by host; without ``report`` if it failed there.
    :param groups: the inventory's hosts by group.
    """
    learned = {name: result["report"] for name, result in results.items() if "report" in result}
    ports = _ports(learned)
    return {
        "schema_version": SCHEMA_VERSION,
        "totals": {verdict: sum(port["verdict"] == verdict for port in ports) for verdict in VERDICTS},
        "hosts": [_host(name, results[name]) for name in sorted(results)],
        "ports": ports,
        "groups": _agreed(learned, groups),
    }


def one_line(report: Mapping[str, Any]) -> str:
    """``50 hosts learned, 1 could not; of 12 ports 5 accelerate, 1 leave, 6 no-gain``."""
    learned = sum(host["status"] == "learned" for host in report["hosts"])
    missing = len(report["hosts"]) - learned
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in report["totals"].items())
    return f"{learned} hosts learned, {missing} could not; of {len(report['ports'])} ports {verdicts}"


def _host(name: str, result: Mapping[str, Any]) -> Report:
    if "report" in result:
        return {"name": name, "status": "learned", "reason": "", **result["report"]}
    status = "unreachable" if result.get("unreachable") else "failed"
    return {"name": name, "status": status, "reason": str(result.get("msg", ""))}


def _ports(learned: Mapping[str, Report]) -> list[Report]:
    """A line for each port over all hosts, most bytes first."""
    found: dict[int, dict[str, Report]] = {}
    for name, report in learned.items():
        for entry in report["ports"]:
            if not entry["passing"]:
                found.setdefault(entry["port"], {})[name] = entry
    merged = [_port(port, entries) for port, entries in found.items()]
    return sorted(merged, key=lambda one: (-one["bytes"], one["port"]))


def _port(port: int, entries: Mapping[str, Report]) -> Report:
    by_verdict = {
        verdict: sorted(name for name, entry in entries.items() if entry["verdict"] == verdict) for verdict in VERDICTS
    }
    return {
        "port": port,
        "verdict": next(verdict for verdict in VERDICTS if by_verdict[verdict]),
        "hosts": {verdict: names for verdict, names in by_verdict.items() if names},
        "reasons": sorted({reason for entry in entries.values() for reason in entry["reasons"]}),
        "why": {
            verdict: sorted({entries[name]["why"] for name in names}) for verdict, names in by_verdict.items() if names
        },
        "gains": _range([entry["gain"] for entry in entries.values() if entry["gain"]]),
        "programs": list(dict.fromkeys(name for entry in entries.values() for name in entry["programs"])),
        "connections": sum(entry["connections"] for entry in entries.values()),
        "bytes": sum(entry["bytes"] for entry in entries.values()),
    }


def _range(gains: Sequence[float]) -> list[Any]:
    """The least and the greatest; None twice if there is none."""
    return [min(gains, default=None), max(gains, default=None)]


def _agreed(learned: Mapping[str, Report], groups: Mapping[str, Sequence[str]]) -> dict[str, Report]:
    """The variables of each group whose hosts have all learned, and learned the same."""
    agreed = {}
    for group, names in groups.items():
        found = [learned[name]["variables"] for name in names if name in learned]
        if found and len(found) == len(names) and all(one == found[0] for one in found):
            agreed[group] = found[0]
    return agreed
