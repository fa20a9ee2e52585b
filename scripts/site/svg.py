# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What drawings by program share: a ground of its own, so that they can be read on light and dark pages."""

from __future__ import annotations

from html import escape

_PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<!-- SPDX-FileCopyrightText: sockredir contributors -->
<!-- SPDX-License-Identifier: GPL-3.0-or-later -->
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t" font-size="12">
<title id="t">{title}</title>
<style>
{style}
</style>
<rect class="ground" x="0.5" y="0.5" width="{inner_width}" height="{inner_height}" rx="10"/>
{body}
</svg>
"""


def page(width: int, height: int, title: str, style: str, body: str) -> str:
    """A whole drawing of ``width`` by ``height`` units; ``body`` is SVG, ``title`` plain text."""
    sizes = {"width": width, "height": height, "inner_width": width - 1, "inner_height": height - 1}
    return _PAGE.format(title=escape(title), style=style.strip("\n"), body=body, **sizes)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """A line of text that begins at x, on the base line y."""
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'
