# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paired ratios of a benchmark: as numbers and as a table."""

from __future__ import annotations

import statistics
from typing import Dict, Iterable, List, Optional

from .names import ACCELERATED, EXPLICIT, HIGHER, INTERCEPTED, LIMITS, OBSERVE, OURS, PLAIN, REDIRECT, TCP, UNIX

#: Of the file of figures. 2: a result has a condition and failures, and may be there once for each choice of subjects.
VERSION = 2
_COLUMNS = {TCP: (PLAIN, UNIX, OURS, OBSERVE), REDIRECT: (INTERCEPTED, ACCELERATED, EXPLICIT, TCP)}
#: What a column is called where that is not its subject.
_HEADS = {REDIRECT: {TCP: "no proxy"}}
_BEST = "best of pair, Unix"


def ratios(values: Dict[str, List[float]], base: str = TCP) -> Dict[str, Dict[str, float]]:
    """Each subject against the base, repetition by repetition.

    :param values: subject -> one figure for each repetition; may be empty.
    :returns: subject -> median, low and high (quartiles) of the paired ratios.
    """
    found = {}
    for subject, figures in values.items():
        if subject != base:
            paired = sorted(figure / other for figure, other in zip(figures, values[base]))
            low, median, high = quartiles(paired)
            found[subject] = {"median": median, "low": low, "high": high}
    return found


def quartiles(values: List[float]) -> tuple:
    """Lower quartile, median, upper quartile; of few values the extremes."""
    if len(values) < 4:
        return min(values), statistics.median(values), max(values)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def best(row: dict) -> Optional[Dict[str, float]]:
    """The ratio of whichever limit is better by its median; None where not all of them were measured."""
    found = [row["ratios"][name] for name in LIMITS if name in row["ratios"]]
    if len(found) < len(LIMITS):
        return None
    choose = max if row["better"] == HIGHER else min
    return choose(found, key=lambda ratio: ratio["median"])


def updated(before: List[dict], measured: List[dict], order: List[str]) -> List[dict]:
    """All results in the order of these works.

    A result of before goes when all its subjects have been measured again under the same condition.
    """

    def replaced(old: dict) -> bool:
        return any(_key(old) == _key(new) and _subjects(old) <= _subjects(new) for new in measured)

    known = [result for result in before if result["work"] in order and not replaced(result)]
    return sorted([*known, *measured], key=lambda result: (result.get("condition", ""), order.index(result["work"])))


def _key(result: dict) -> tuple:
    """What a result is of; there were no conditions in version 1."""
    return result["work"], result["metric"], result.get("condition", "")


def _subjects(result: dict) -> set:
    return {*result["values"], *result.get("failed", {})}


def rows(results: Iterable[dict]) -> List[dict]:
    """One for each work, figure and condition.

    Subjects that were measured apart have been paired with plain TCP of their own run.
    """
    found: Dict[tuple, dict] = {}
    for result in results:
        row = found.setdefault(_key(result), {**result, "ratios": {}, "failed": {}})
        row["values"] = row["values"] or result["values"]
        row["ratios"].update(result["ratios"])
        row["failed"].update(result.get("failed", {}))
    return list(found.values())


def title(row: dict) -> str:
    condition = row.get("condition")
    return f"{row['title']} [{condition}]" if condition else row["title"]


def machine(document: dict) -> str:
    """One line; version 1 knew less of it."""
    host = document["host"]
    parts = [f"Linux {host['kernel']}", f"{host['cpus']} CPUs" + (f" ({host['cpu']})" if "cpu" in host else "")]
    if "congestion_control" in host:
        parts.append(f"congestion control {host['congestion_control']}")
    return ", ".join(parts)


def runs(document: dict) -> str:
    """How often and how long; results of several runs of the benchmark may differ in it."""
    measured = [result for result in document["results"] if base_of(result) in result["values"]]
    counts = sorted({len(result["values"][base_of(result)]) for result in measured})
    lengths = sorted({result.get("seconds", document["seconds"]) for result in measured})
    return f"{_span(counts)} paired runs of {_span(lengths)} s"


def base_of(result: dict) -> str:
    """What it is compared with; older result files do not say so, and mean plain TCP."""
    return result.get("base", TCP)


def _span(numbers: List[float]) -> str:
    """0 where there are none."""
    return " to ".join(f"{number:g}" for number in sorted({*numbers[:1], *numbers[-1:]})) or "0"


def text(document: dict) -> str:
    """For a terminal."""
    end = "Ratios to the first column in the same run: median (quartiles). + more is better, - less is better."
    tables = [table(document["results"], base) for base in _COLUMNS]
    return "\n\n".join([f"{machine(document)}; {runs(document)}.", *filter(None, tables), end])


def table(results: Iterable[dict], base: str = TCP) -> str:
    """Median ratios to the base with quartiles, the base's own median; columns that have any. May be empty."""
    lines = rows(result for result in results if base_of(result) == base)
    if not lines:
        return ""
    names = [name for name in _COLUMNS[base] if any(name in row["ratios"] or name in row["failed"] for row in lines)]
    heads = _HEADS.get(base, {})
    cells = [["work", "figure", base, *(heads.get(name, name) for name in names)]]
    cells += [[title(row), _figure(row), _base(row), *(_cell(row, name) for name in names)] for row in lines]
    limits = [best(row) for row in lines]
    if any(limits):
        cells[0].append(_BEST)
        for line, limit in zip(cells[1:], limits):
            line.append(_ratio(limit) if limit else "-")
    return _aligned(cells)


def _aligned(cells: List[List[str]]) -> str:
    """The first two columns to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = []
    for line in cells:
        left = [cell.ljust(width) for cell, width in zip(line[:2], widths)]
        right = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:])]
        lines.append("  ".join(left + right))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _figure(row: dict) -> str:
    return f"{row['metric']} {'+' if row['better'] == HIGHER else '-'}"


def _base(row: dict) -> str:
    values = row["values"].get(base_of(row))
    return _amount(statistics.median(values), row["unit"]) if values else "failed"


def _cell(row: dict, name: str) -> str:
    if name in row["ratios"]:
        return _ratio(row["ratios"][name])
    return "failed" if name in row["failed"] else "-"


def _ratio(ratio: Dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def _amount(value: float, unit: str) -> str:
    if unit == "MB/s":
        return f"{value:,.0f} MB/s"
    if unit == "us":
        return f"{value:,.1f} us"
    return f"{value:,.0f} /s"
