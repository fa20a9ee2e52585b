# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paired ratios of a benchmark as a chart."""

from __future__ import annotations

import importlib.util
from typing import List

from . import report
from .names import HIGHER, OBSERVE, OURS, PLAIN, TCP, UNIX

#: In the order of a row's marks.
_COLOURS = {PLAIN: "#c44e52", UNIX: "#8a8a8a", OURS: "#1f5fa8", OBSERVE: "#55a868"}
_MARKS = {PLAIN: "s", OURS: "o", OBSERVE: "^", UNIX: "D"}


def need() -> None:
    """:raises SystemExit: no chart can be drawn; said before anything is measured."""
    if not importlib.util.find_spec("matplotlib"):
        raise SystemExit("benchmark: --chart needs matplotlib: pip install -r requirements/benchmark.txt")


def draw(document: dict, path: str) -> None:
    """Draw it with matplotlib; the suffix of ``path`` chooses the format."""
    need()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [row for row in report.rows(document["results"]) if row["ratios"] and report.base_of(row) == TCP]
    groups = [
        ("Throughput and rate (right of the line is better)", [row for row in found if row["better"] == HIGHER]),
        ("Latency (left of the line is better)", [row for row in found if row["better"] != HIGHER]),
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
    labelled = {}
    for axis in axes[:, 0]:
        labelled.update({label: handle for handle, label in zip(*axis.get_legend_handles_labels())})
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower right", ncols=len(labelled), frameon=False)
    figure.suptitle(
        f"Ratio to plain TCP, median and quartiles of {report.runs(document)}\n{report.machine(document)}",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(axis, title: str, results: List[dict]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    names = [name for name in _COLOURS if any(name in result["ratios"] for result in results)]
    seen = [ratio[end] for result in results for ratio in result["ratios"].values() for end in ("low", "high")]
    for row, result in enumerate(results):
        for place, name in enumerate(names):
            if name in result["ratios"]:
                _mark(axis, name, result["ratios"][name], row + 0.2 * (place - (len(names) - 1) / 2))
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xscale("log")
    wide = max(seen) / min(seen) > 30
    ticks = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100] if wide else [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}x"))
    axis.set_yticks(range(len(results)), [f"{report.title(r)}, {r['metric']}" for r in results])
    axis.set_ylim(len(results) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    for row in range(1, len(results), 2):
        axis.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    axis.set_title(title, loc="left", fontsize=10)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _mark(axis, name: str, ratio: dict, height: float) -> None:
    colour = _COLOURS[name]
    axis.plot([ratio["low"], ratio["high"]], [height, height], color=colour, linewidth=2, alpha=0.5)
    size = 8 if name == OURS else 6
    axis.plot([ratio["median"]], [height], _MARKS[name], color=colour, markersize=size, label=name)
