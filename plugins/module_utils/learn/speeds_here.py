# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find how fast plain TCP and redirection are on this host, and measure it if nobody has."""

from __future__ import annotations

from ..calibration import measure, record
from ..compile import compilers
from ..errors import SockredirError
from ..state import manifest
from .speeds import ENABLED, ESTIMATE, MEASURED, Speeds, of_record


def of_host(state_dir: str, source: str) -> Speeds:
    """What the host's manifest has; else measure, which takes some seconds; else the table.

    :param source: str, path of the C source or object of the programs that redirect.
    """
    try:
        document = manifest.current(state_dir) or {}
        known = of_record(document.get(record.SECTION) or {}, ENABLED)
        return known or _measured(source)
    except SockredirError as error:
        return ESTIMATE._replace(problem=error.message)


def _measured(source: str) -> Speeds:
    data = compilers.read(source) if source.endswith(".o") else compilers.compile_clang(source, {}).data
    figures = record.figures(measure.measure(data, {}))
    found = of_record({**record.valid_for(None), **figures}, MEASURED)
    if not found or not found.streams:
        raise SockredirError("plain TCP and redirection could not be compared in the time allowed")
    return found
