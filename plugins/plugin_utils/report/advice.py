# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet has learned as an HTML page: a table of its ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..fleet_advice import VERDICTS, one_line
from .document import render

_COLUMNS = (
    ("port", "Port", "text"),
    ("verdict", "Verdict", "number"),
    ("hosts", "Hosts", "number"),
    ("gain", "Gain", "number"),
    ("connections", "Connections", "number"),
    ("bytes", "Bytes", "number"),
    ("programs", "Programs", "text"),
    ("reason", "Reasons", "text"),
)


def to_page(report: Mapping[str, Any]) -> str:
    """The report as a complete HTML document.

    :param report: as :func:`..fleet_advice.advise` makes it.
    """
    return render(
        "advice.html.j2",
        report=report,
        line=one_line(report),
        verdicts=VERDICTS,
        columns=_COLUMNS,
        ports=[{**port, **_shown(port)} for port in report["ports"]],
        missing=[host for host in report["hosts"] if host["status"] != "learned"],
        reasons=sorted({", ".join(port["reasons"]) for port in report["ports"]} - {""}),
    )


def _shown(port: Mapping[str, Any]) -> dict[str, Any]:
    low, high = port["gains"]
    gain = "" if low is None else f"{low:.2f}x" if low == high else f"{low:.2f}x to {high:.2f}x"
    return {"count": sum(map(len, port["hosts"].values())), "gain": gain}
