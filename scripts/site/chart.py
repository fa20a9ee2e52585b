# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""chart.py TABLE.md CHART.svg: the first table of ratios in a page as a chart, so that both say the same."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import List, NamedTuple

from svg import page, text

_STYLE = """
  text { font-family: system-ui, sans-serif; fill: #1c2430 }
  .b { font-weight: 600; font-size: 14px }
  .s { fill: #455063; font-size: 11px }
  .m { text-anchor: middle }
  .ground { fill: #fbfcfe; stroke: #d5dbe5 }
  .grid { stroke: #d5dbe5 }
  .one { stroke: #1c2430; stroke-width: 1.5 }
  .k0 { fill: #c44e52; stroke: #c44e52 }
  .k1 { fill: #1f5fa8; stroke: #1f5fa8 }
  .k2 { fill: #8a8a8a; stroke: #8a8a8a }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6ebf2 }
    .s { fill: #b4bfce }
    .ground { fill: #171b22; stroke: #39424f }
    .grid { stroke: #39424f }
    .one { stroke: #e6ebf2 }
    .k0 { fill: #ee8286; stroke: #ee8286 }
    .k1 { fill: #79b0ee; stroke: #79b0ee }
    .k2 { fill: #b0b0b0; stroke: #b0b0b0 }
  }
"""
_SUBJECTS = ("plain pair", "sockredir", "Unix sockets")
_TICKS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4)
_CELL = re.compile(r"([\d.]+) \(([\d.]+)-([\d.]+)\)")
_WIDTH, _LEFT, _RIGHT, _ROW = 620, 262, 600, 26


class Row(NamedTuple):
    """A line of the table; ratios are (median, low, high) for each subject, None if it was not measured."""

    work: str
    figure: str
    ratios: list


def rows(document: str) -> List[Row]:
    """:raises SystemExit: the document has no such table."""
    found = []
    for line in document.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        ratios = [_CELL.fullmatch(cell) for cell in cells[2:]]
        if any(ratios):
            found.append(Row(cells[0], cells[1], [tuple(map(float, r.groups())) if r else None for r in ratios]))
        elif found:
            return found
    if not found:
        raise SystemExit("chart: no table of ratios")
    return found


def _less_is_better(row: Row) -> bool:
    return row.figure in ("p50", "p99")


def _place(ratio: float) -> float:
    low, high = math.log(_TICKS[0]), math.log(_TICKS[-1])
    inside = min(max(math.log(ratio), low), high)
    return _LEFT + (inside - low) / (high - low) * (_RIGHT - _LEFT)


def _mark(kind: int, ratio: tuple, y: float) -> str:
    median, low, high = ratio
    ends = f'x1="{_place(low):.1f}" x2="{_place(high):.1f}" y1="{y:g}" y2="{y:g}"'
    return (
        f'<line class="k{kind}" {ends} stroke-width="2" opacity="0.5"/>'
        f'<circle class="k{kind}" cx="{_place(median):.1f}" cy="{y:g}" r="{4 if kind == 1 else 3}"/>'
    )


def _row(row: Row, y: float) -> List[str]:
    marks = [_mark(kind, ratio, y + 6 * (kind - 1)) for kind, ratio in enumerate(row.ratios) if ratio]
    return [text(16, y + 4, f"{row.work}, {row.figure}"), *marks]


def _panel(title: str, chosen: List[Row], top: float) -> List[str]:
    end = top + 26 + _ROW * len(chosen)
    drawn = [text(16, top, title, "b")]
    for tick in _TICKS:
        x = _place(tick)
        drawn.append(
            f'<line class="{"one" if tick == 1 else "grid"}" x1="{x:.1f}" x2="{x:.1f}" y1="{top + 10:g}" y2="{end:g}"/>'
        )
        drawn.append(text(x, end + 14, f"{tick:g}x", "s m"))
    for number, row in enumerate(chosen):
        drawn += _row(row, top + 26 + _ROW * number)
    return drawn


def _legend(y: float) -> List[str]:
    drawn = []
    for kind, name in enumerate(_SUBJECTS):
        x = 16 + 120 * kind
        drawn += [f'<circle class="k{kind}" cx="{x}" cy="{y - 4:g}" r="4"/>', text(x + 10, y, name)]
    return drawn


def draw(document: str) -> str:
    """The chart of the first table in ``document`` (Markdown), as SVG."""
    more = [row for row in rows(document) if not _less_is_better(row)]
    less = [row for row in rows(document) if _less_is_better(row)]
    second = 110 + _ROW * len(more) + 30
    height = second + _ROW * len(less) + 70
    drawn = [text(16, 30, "Ratio to plain TCP: median and quartiles", "b"), *_legend(54)]
    drawn += _panel("Throughput and rate: right of 1x is better", more, 88)
    drawn += _panel("Latency: left of 1x is better", less, second + 10)
    return page(_WIDTH, height, "What redirection gains, as the table says it", _STYLE, "\n".join(drawn))


if __name__ == "__main__":
    table, chart = map(Path, sys.argv[1:])
    chart.write_text(draw(table.read_text(encoding="utf-8")), encoding="utf-8")
