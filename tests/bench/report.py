# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paired ratios of a benchmark: as numbers, as a table, as a chart."""

from __future__ import annotations

import importlib.util
import statistics
from typing import Dict, Iterable, List

REFERENCE = "TCP"
_COLOURS = {"plain pair": "#c44e52", "sockredir": "#1f5fa8", "Unix sockets": "#8a8a8a"}
_MARKS = {"plain pair": "s", "sockredir": "o", "Unix sockets": "D"}


def ratios(values: Dict[str, List[float]]) -> Dict[str, Dict[str, float]]:
    """Each subject against plain TCP, repetition by repetition.

    :param values: subject -> one figure for each repetition.
    :returns: subject -> median, low and high (quartiles) of the paired ratios.
    """
    reference = values[REFERENCE]
    found = {}
    for subject, figures in values.items():
        if subject != REFERENCE:
            paired = sorted(figure / base for figure, base in zip(figures, reference))
            low, median, high = quartiles(paired)
            found[subject] = {"median": median, "low": low, "high": high}
    return found


def quartiles(values: List[float]) -> tuple:
    """Lower quartile, median, upper quartile; of few values the extremes."""
    if len(values) < 4:
        return min(values), statistics.median(values), max(values)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def table(results: Iterable[dict]) -> str:
    """Lines for a terminal: median ratio to plain TCP with its quartiles, and TCP's own median."""
    names = ["plain pair", "sockredir", "Unix sockets"]
    head = f"{'work':38} {'figure':10} {'TCP':>12} " + " ".join(f"{name:>19}" for name in names)
    lines = [head, "-" * len(head)]
    for result in results:
        base = statistics.median(result["values"][REFERENCE])
        cells = []
        for name in names:
            ratio = result["ratios"].get(name)
            cells.append(f"{ratio['median']:6.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "-")
        arrow = "+" if result["better"] == "higher" else "-"
        figure = f"{result['metric']} {arrow}"
        lines.append(
            f"{result['title']:38} {figure:10} {_amount(base, result['unit']):>12} "
            + " ".join(f"{c:>19}" for c in cells)
        )
    lines.append("")
    lines.append("Ratios to plain TCP in the same run: median (quartiles). + more is better, - less is better.")
    return "\n".join(lines)


def _amount(value: float, unit: str) -> str:
    if unit == "MB/s":
        return f"{value:,.0f} MB/s"
    if unit == "us":
        return f"{value:,.1f} us"
    return f"{value:,.0f} /s"


def need_chart() -> None:
    """:raises SystemExit: no chart can be drawn; said before anything is measured."""
    if not importlib.util.find_spec("matplotlib"):
        raise SystemExit("benchmark: --chart needs matplotlib: pip install -r requirements/benchmark.txt")


def chart(document: dict, path: str) -> None:
    """Draw it with matplotlib; the suffix of ``path`` chooses the format."""
    need_chart()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = [
        (
            "Throughput and rate (right of the line is better)",
            [r for r in document["results"] if r["better"] == "higher"],
        ),
        ("Latency (left of the line is better)", [r for r in document["results"] if r["metric"] in ("p50", "p99")]),
    ]
    groups = [(title, results) for title, results in groups if results]
    rows = [len(results) for _title, results in groups]
    figure, axes = pyplot.subplots(
        len(rows),
        1,
        figsize=(10, 2.2 + 0.4 * sum(rows)),
        gridspec_kw={"height_ratios": rows},
        layout="constrained",
        squeeze=False,
    )
    for axis, (title, results) in zip(axes[:, 0], groups):
        _panel(axis, title, results)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
    host = document["host"]
    figure.suptitle(
        f"Ratio to plain TCP, median and quartiles of {document['repeats']} paired runs\n"
        f"Linux {host['kernel']}, {host['cpus']} CPUs",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(axis, title: str, results: List[dict]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    names = ["plain pair", "Unix sockets", "sockredir"]
    seen = [ratio[end] for result in results for ratio in result["ratios"].values() for end in ("low", "high")]
    named = set()
    for row, result in enumerate(results):
        for place, name in enumerate(names):
            ratio = result["ratios"].get(name)
            if ratio:
                height = row + 0.22 * (place - 1)
                axis.plot([ratio["low"], ratio["high"]], [height, height], color=_COLOURS[name], linewidth=2, alpha=0.5)
                axis.plot(
                    [ratio["median"]],
                    [height],
                    _MARKS[name],
                    color=_COLOURS[name],
                    markersize=8 if name == "sockredir" else 6,
                    label=None if name in named else name,
                )
                named.add(name)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    wide = max(seen) / min(seen) > 30
    ticks = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100] if wide else [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}x"))
    axis.set_yticks(range(len(results)), [f"{r['title']}, {r['metric']}" for r in results])
    axis.set_ylim(len(results) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    for row in range(1, len(results), 2):
        axis.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    axis.set_title(title, loc="left", fontsize=10)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
