# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl verify --speed``: compare plain TCP with redirection on this host, now."""

from __future__ import annotations

import statistics
from typing import Any, Dict, List, Sequence

from ..calibration import decision, measure, record
from ..errors import SockredirError
from ..state import store
from . import context


def compare(state_dir: str) -> Dict[str, Any]:
    """Measure as an enable does, and change nothing.

    :returns: ``streams`` (per size ``bytes`` a message, and the medians ``plain`` and ``redirected``, bytes a second,
        ``ratio`` and ``turns``), ``request_us`` by kind, ``stream_from`` that follows, and ``demote_below`` and
        ``calibration`` that are in force; or ``problem`` instead of the first three.
    :raises SockredirError: the host is not enabled.
    """
    document = context.enabled(state_dir)
    report = {
        "demote_below": document["settings"].get("demote_below"),
        "calibration": document.get(record.SECTION, {}),
    }
    try:
        found = measure.measure(*_object(document, state_dir))
    except SockredirError as error:
        return {**report, "problem": str(error)}
    return {
        **report,
        "streams": [_row(size, turns) for size, turns in sorted(found.streams.items()) if turns],
        "request_us": found.requests,
        "stream_from": decision.stream_from(found.streams),
    }


def _object(document: Dict[str, Any], state_dir: str) -> Any:
    program = record.program(document)
    if not program.get("object_sha256"):
        raise SockredirError("the manifest names no object that redirects", "enable again")
    return store.get(state_dir, program["object_sha256"]), program["config"]


def _row(size: int, turns: Sequence[decision.Turn]) -> Dict[str, Any]:
    return {
        "bytes": size,
        "plain": round(statistics.median(turn.plain for turn in turns)),
        "redirected": round(statistics.median(turn.redirected for turn in turns)),
        "ratio": round(statistics.median(turn.ratio for turn in turns), 2),
        "turns": len(turns),
    }


def text(report: Dict[str, Any]) -> List[str]:
    """For a person."""
    in_force = f"in force: {record.words(report['demote_below'], report['calibration'])}"
    if "problem" in report:
        return [f"speed: not compared: {report['problem']}", in_force]
    asked = report["request_us"]
    lines = [f"{'':<24}{'plain TCP':>14}{'redirected':>14}{'ratio':>8}"]
    lines.append(
        f"{'request of 64 bytes':<24}{asked['plain']:>11.1f} us{asked['redirected']:>11.1f} us"
        f"{asked['plain'] / asked['redirected']:>8.2f}"
    )
    lines += [_line(row) for row in report["streams"]]
    smallest = report["stream_from"]
    streams = f"from {record.size(smallest)} per message up" if smallest else "at no size that was tried"
    return [*lines, f"one way, redirection is faster {streams}", in_force]


def _line(row: Dict[str, Any]) -> str:
    rates = (f"{8 * row[kind] / 1e9:>7.1f} Gbit/s" for kind in ("plain", "redirected"))
    return f"{'one way, ' + record.size(row['bytes']):<24}{''.join(rates)}{row['ratio']:>8.2f}"
