# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A C file and the headers that it includes as one text, so that one file is copied to a host instead of a dozen."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Iterator

_INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def join(path: Path) -> str:
    """The file with each local include replaced by its text, the first time it is met.

    ``#line`` directives keep the names and lines that a compiler reports. Headers have include guards, so that the
    further times mean nothing anyway.

    :raises OSError: the file or a header cannot be read.
    """
    return "\n".join(_lines(path.name, path.parent, {path.name})) + "\n"


def _lines(name: str, folder: Path, met: set[str]) -> Iterator[str]:
    """Files go by their names below the folder of the first one."""
    yield f'#line 1 "{name}"'
    for number, line in enumerate((folder / name).read_text(encoding="utf-8").splitlines(), 1):
        include = _INCLUDE.match(line)
        if include is None:
            yield line
            continue
        header = os.path.normpath(os.path.join(os.path.dirname(name), include.group(1)))
        if header not in met:
            met.add(header)
            yield from _lines(header, folder, met)
        yield f'#line {number + 1} "{name}"'
