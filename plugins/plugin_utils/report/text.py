# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from hosts made fit to be shown: visible characters only, and not too much of it.

Everything a report shows came from a host or an inventory, so none of it is trusted. Here it becomes plain text that
JSON, XML 1.0 and HTML can all carry; escaping for the format is left to the writer of each format.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

#: Characters of a value (a drift's before and after, a log) that are shown.
VALUE_LIMIT = 1000
#: Characters of one line (a summary, an error message).
LINE_LIMIT = 300
#: Characters of a name (a host, a kernel release, a counter's reason).
NAME_LIMIT = 255

#: Joiners that scripts and emoji need; every other format character is invisible or turns text around.
_JOINERS = "\u200c\u200d"
#: Control, format, surrogate, line and paragraph separator: they have a place in no name and no log.
_ESCAPED_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def block(value: Any, limit: int = VALUE_LIMIT) -> str:
    """A value as text of one or more lines.

    :param value: a str is shown as it is, bytes as UTF-8, anything else as JSON with sorted keys.
    :param limit: int, characters shown at most; what is left out is counted in the text.
    :returns: str, without control, format, surrogate or noncharacters: those appear as escapes such as ``\\x1b``.
    """
    text = _as_text(value)
    return _shown(text[:limit].replace("\r\n", "\n"), text, limit)


def line(value: Any, limit: int = LINE_LIMIT) -> str:
    """A value as one line: as :func:`block`, with every run of white space one blank."""
    text = _as_text(value)
    return _shown(" ".join(text[:limit].split()), text, limit)


def name(value: Any) -> str:
    """A value as a name: one line of at most :data:`NAME_LIMIT` characters."""
    return line(value, NAME_LIMIT)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _shown(head: str, text: str, limit: int) -> str:
    shown = "".join(map(_visible, head))
    if len(text) <= limit:
        return shown
    return f"{shown}\u2026 [{limit:,} of {len(text):,} characters shown]"


def _visible(char: str) -> str:
    if char in "\n\t" or char in _JOINERS or " " <= char <= "~":
        return char
    if unicodedata.category(char) in _ESCAPED_CATEGORIES or _is_noncharacter(ord(char)):
        return char.encode("unicode_escape").decode("ascii")
    return char


def _is_noncharacter(code: int) -> bool:
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
