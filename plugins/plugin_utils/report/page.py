# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet report as one HTML page that needs nothing else and runs nothing but its own script.

The page is whole without the script (all hosts, all details); the script sorts, filters and folds.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

from .build import Report, one_line
from .document import render
from .host import STATUSES

#: Rows of a distribution that are drawn; the rest is one row.
_BARS = 8

_LABELS: Dict[str, str] = {
    "failed": "failed",
    "unreachable": "unreachable",
    "drifted": "drifted",
    "unsupported": "unsupported",
    "not_enabled": "not enabled",
    "compliant": "compliant",
}
_COLUMNS = (
    ("host", "Host", "text"),
    ("status", "Status", "number"),
    ("kernel", "Kernel", "text"),
    ("version", "Version", "text"),
    ("mode", "Mode", "text"),
    ("redirected", "Redirected", "number"),
    ("flows", "Flows", "number"),
    ("summary", "What", "text"),
)
_DRIFT_HEADS = ("Difference", "Where", "Found (before)", "Enable would make it (after)")
_PORT_HEADS = ("Port", "Verdict", "Programs", "Connections", "Redirected", "Speed to expect", "Why")
_INTERCEPT_HEADS = ("Rule", "Programs", "Proxy", "Listening", "Nobody listens", "Happened")
_MISSING_HEADS = ("Missing", "Found", "Needed", "Cure")


def to_page(report: Report) -> str:
    """The report as a complete HTML document (str)."""
    return render(
        "page.html.j2",
        report=report,
        line=one_line(report),
        statuses=STATUSES,
        labels=_LABELS,
        columns=_COLUMNS,
        most_bars=_BARS,
        drift_heads=_DRIFT_HEADS,
        missing_heads=_MISSING_HEADS,
        port_heads=_PORT_HEADS,
        intercept_heads=_INTERCEPT_HEADS,
        stack=_stack(report["totals"]),
        rollout_facts=_rollout_facts(report["rollout"]) if report["rollout"] else [],
        distributions=_distributions(report),
        kernels=sorted({host["kernel"] for host in report["hosts"] if host["kernel"]}),
    )


def _stack(totals: Mapping[str, int]) -> List[Dict[str, Any]]:
    """All hosts as one bar, divided by status; widths are attributes, as the policy forbids inline styles."""
    parts: List[Dict[str, Any]] = []
    left = 0.0
    for status in STATUSES:
        width = 1000 * totals[status] / (totals["hosts"] or 1)
        parts.append({"status": status, "left": left, "width": width})
        left += width
    return parts


def _rollout_facts(rollout: Mapping[str, Any]) -> List[Tuple[str, str]]:
    hosts = [f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in rollout["totals"].items() if count]
    return [
        ("State", f"{rollout['state']}: {rollout['why']}" if rollout["why"] else rollout["state"]),
        ("Failure budget", f"{rollout['spent']} of {rollout['budget']} hosts spent"),
        ("Batches", str(rollout["batches"])),
        ("Hosts", ", ".join(hosts)),
    ]


def _distributions(report: Report) -> List[Tuple[str, Any]]:
    found = report["distributions"]
    return [
        ("What drifted", report["drift_kinds"]),
        ("What is missing", report["missing"]),
        ("Ports to leave", report["ports_to_leave"]),
        ("Interception rules whose proxy is down", report["proxies_down"]),
        ("Kernels", found["kernel"]),
        ("Distributions", found["distribution"]),
        ("Installed versions", found["version"]),
        ("Modes", found["mode"]),
    ]
