# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTML pages that need nothing else and run nothing but their own script.

The content security policy lets only that script and that style sheet in, by their digests, and nothing from outside.
The templates escape every value by themselves.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, List

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """A complete HTML document.

    :param template: name of a file beside this one, which is given ``style``, ``script`` and ``policy`` too.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    found = _environment().from_string(_asset(template))
    return found.render(policy=policy, style=Markup(style), script=Markup(script), **values)


def _environment() -> Environment:
    made = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    made.filters.update(number="{:,}".format, size=_size, row=lambda entry, *keys: [entry[key] for key in keys])
    return made


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


def _size(count: int) -> str:
    """Bytes in the largest unit that leaves one digit or more: ``1.2 GiB``."""
    units: List[str] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    size, unit = float(count), 0
    while size >= 1024 and unit < len(units) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count:,} B" if unit == 0 else f"{size:,.1f} {units[unit]}"
