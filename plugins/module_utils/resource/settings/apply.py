# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the programs' settings."""

from __future__ import annotations

from typing import Any, Dict

from ...change.transaction import Undo
from ...datapath import live
from ...datapath.settings import to_layout


def write_settings(pin_dir: str, state_dir: str, wanted: Dict[str, Any]) -> Undo:
    """Tell the programs what is wanted; returns what tells them the old."""
    raw = live.write_settings(pin_dir, state_dir, to_layout(wanted))
    return lambda: live.restore_settings(pin_dir, state_dir, raw)
