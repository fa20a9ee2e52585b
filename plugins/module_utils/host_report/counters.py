# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs' counters and settings, and how much memory they hold."""

from __future__ import annotations

from typing import Any, Dict

from ..datapath import layout, live, settings_value

NOTHING: Dict[str, Any] = {"mode": None, "settings": None, "counters": None, "flows": None, "memory": None}


def report(pin_dir: str) -> Dict[str, Any]:
    """``mode``, ``settings``, ``counters``, ``flows`` (how many) and ``memory``; each None if its map is missing.

    :raises SockredirError: a map is of another layout, or may not be read.
    """
    found = live.read_settings(pin_dir)
    settings = found.settings if found else None
    counts = live.counters(pin_dir)
    return {
        "mode": settings.mode.name.lower() if settings else None,
        "settings": _settings(settings) if settings else None,
        "settings_trouble": found.trouble if found else "",
        "counters": _counters(counts) if counts is not None else None,
        "flows": {"open": layout.flows_now(counts), "connections": None} if counts is not None else None,
        "memory": {"used": live.used(pin_dir), "budget": settings.budget if settings else None},
    }


def _counters(counts: Dict[str, layout.Count]) -> Dict[str, Dict[str, int]]:
    return {reason: {"messages": count.events, "bytes": count.bytes} for reason, count in counts.items()}


def _settings(settings: settings_value.Settings) -> Dict[str, Any]:
    shown = {**settings._asdict(), "mode": settings.mode.name.lower()}
    # Not settings, but how they are handed over.
    for name in ("generation", "trace_until"):
        shown.pop(name)
    return shown
