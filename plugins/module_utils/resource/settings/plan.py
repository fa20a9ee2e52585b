# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which step writes the programs' settings. Pure."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ...change.step import Plan, Step
from ...datapath.settings import Found, from_layout


def steps(wanted: Dict[str, Any], found: Optional[Found]) -> Plan:
    """Write the wanted settings, if the programs have others."""
    now = from_layout(found.settings) if found and found.settings else None
    if now == wanted and found and not found.trouble:
        return []
    before: Any = now
    if found and found.trouble:
        before = {"trouble": found.trouble, **(now or {})}
    return [step(before, wanted)]


def step(before: Any, wanted: Dict[str, Any]) -> Step:
    """Write the programs' settings."""
    return Step("settings", "settings", before, wanted, kind="settings_changed")
