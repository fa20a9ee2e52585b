# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""terminal.py TITLE PICTURE.svg: what a program has printed (standard input) as the picture of a terminal."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

from svg import page, text

_STYLE = """
  .ground { fill: #171b22; stroke: #39424f }
  .bar { fill: #b4bfce; font-family: system-ui, sans-serif }
  .line { fill: #e6ebf2; font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; white-space: pre }
"""
#: Of a character at 12px, and of a line.
_WIDTH, _HEIGHT = 7.25, 16
_MARGIN, _TOP = 16, 46


def draw(title: str, printed: str) -> str:
    """The picture.

    :raises SystemExit: nothing was printed, or what a picture cannot show.
    """
    lines = printed.expandtabs().rstrip("\n").split("\n")
    if not any(lines):
        raise SystemExit("terminal: nothing was printed")
    odd = {char for char in "".join(lines) if unicodedata.category(char).startswith("C")}
    if odd:
        raise SystemExit(f"terminal: {sorted(odd)!r} cannot be shown: have the program print without colours")
    width = round(2 * _MARGIN + _WIDTH * max(map(len, lines)))
    body = [text(_MARGIN, 24, title, "bar")]
    body += [text(_MARGIN, _TOP + _HEIGHT * number, line, "line") for number, line in enumerate(lines) if line]
    return page(width, _TOP + _HEIGHT * len(lines), title, _STYLE, "\n".join(body))


def main(title: str, target: str) -> None:
    Path(target).write_text(draw(title, sys.stdin.read()), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
