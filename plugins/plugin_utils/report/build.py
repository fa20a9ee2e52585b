# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet report: what every host said, counted. Its shape is docs/report-schema.md."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from . import text
from .host import OUTCOMES, STATUSES, Entry, entry

#: Raised when a key goes, or changes its type or meaning; a new key does not raise it.
SCHEMA_VERSION = 1

Report = Dict[str, Any]


def build(
    results: Iterable[Tuple[str, Optional[Mapping[str, Any]]]],
    when: datetime,
    title: str = "sockredir audit",
    generator: str = "",
    rollout: Optional[Mapping[str, Any]] = None,
) -> Report:
    """Make the report.

    :param results: pairs of a host's name and its ``sockmap_info`` result (None: it has none).
    :param when: datetime with a time zone, the moment the report stands for.
    :param title: str, what a person reads on top.
    :param generator: str, version of the collection on the controller.
    :param rollout: in a rollout's report ``{"state", "why", "budget", "spent", "batches", "outcomes"}``, the last a
        mapping of host to what :func:`~.host.entry` takes as its outcome; None in an audit.
    """
    outcomes = rollout["outcomes"] if rollout else {}
    hosts = sorted((entry(host, result, outcomes.get(host)) for host, result in results), key=_worst_first)
    return {
        "schema": "ebpf.sockredir.fleet_report",
        "schema_version": SCHEMA_VERSION,
        "title": text.line(title),
        "generated_at": when.isoformat(timespec="seconds"),
        "generator": text.name(generator) if generator else None,
        "totals": _totals(hosts),
        "drift_kinds": _drift_kinds(hosts),
        "missing": _distribution(item["name"] for host in hosts for item in host["missing"]),
        "distributions": {
            key: _distribution(host[key] for host in hosts)
            for key in ("kernel", "architecture", "distribution", "version", "mode")
        },
        "counters": _sum_counters(hosts),
        "ports_to_leave": _ports_to_leave(hosts),
        "proxies_down": _proxies_down(hosts),
        "rollout": _rollout(rollout, hosts) if rollout else None,
        "hosts": hosts,
    }


def one_line(report: Report) -> str:
    """The totals as a person says them: ``200 hosts: 3 drifted, 1 unreachable, 196 compliant``."""
    totals = report["totals"]
    parts = [f"{totals[status]} {status.replace('_', ' ')}" for status in STATUSES if totals[status]]
    return f"{totals['hosts']} host{'s' * (totals['hosts'] != 1)}: {', '.join(parts) or 'none'}"


def _worst_first(host: Entry) -> Tuple[int, List[Any]]:
    return STATUSES.index(host["status"]), natural(host["name"])


def natural(name: str) -> List[Any]:
    """A sort key that puts web2 before web10."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split("([0-9]{1,18})", name)]


def _totals(hosts: List[Entry]) -> Dict[str, int]:
    count = Counter(host["status"] for host in hosts)
    return {"hosts": len(hosts), **{status: count[status] for status in STATUSES}}


def _rollout(rollout: Mapping[str, Any], hosts: List[Entry]) -> Dict[str, Any]:
    count = Counter(host["rollout"]["outcome"] for host in hosts if host["rollout"])
    return {
        "state": rollout["state"],
        "why": text.line(rollout["why"]) if rollout.get("why") else None,
        **{key: rollout.get(key) for key in ("budget", "spent", "batches")},
        "totals": {outcome: count[outcome] for outcome in OUTCOMES},
    }


def _drift_kinds(hosts: List[Entry]) -> List[Dict[str, Any]]:
    # A host counts once per kind, however many of its pins or attachments differ that way.
    return _distribution(kind for host in hosts for kind in {item["kind"] for item in host["drift"]})


def _ports_to_leave(hosts: List[Entry]) -> List[Dict[str, Any]]:
    return _distribution(
        " ".join([str(item["port"]), *item["programs"]])
        for host in hosts
        for item in host["ports"]
        if item["verdict"] == "leave"
    )


def _proxies_down(hosts: List[Entry]) -> List[Dict[str, Any]]:
    return _distribution(
        item["rule"] for host in hosts for item in host["intercepts"] if item["not_listening"] and not item["listening"]
    )


def _distribution(values: Iterable[Optional[str]]) -> List[Dict[str, Any]]:
    count = Counter(values)
    ordered = sorted(count.items(), key=lambda item: (-item[1], item[0] or ""))
    return [{"value": value, "hosts": hosts} for value, hosts in ordered]


def _sum_counters(hosts: List[Entry]) -> Dict[str, Dict[str, int]]:
    total: Dict[str, Dict[str, int]] = {}
    for host in hosts:
        for reason, count in host["counters"].items():
            mine = total.setdefault(reason, {"messages": 0, "bytes": 0})
            for unit in mine:
                mine[unit] += count[unit]
    return dict(sorted(total.items()))
