# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in which each program's work is done besides plain TCP."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple, Tuple

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings_value

Settings = Dict[str, Any]
_ENFORCE: Settings = {"mode": "enforce"}
_DRAIN: Settings = {"mode": "drain"}


class Way(NamedTuple):
    """Settings at the beginning, and those that come one after the other while the work is done."""

    name: str
    first: Settings
    turns: Tuple[Settings, ...] = ()
    redirects: bool = True


WAYS = {
    way.name: way
    for way in (
        Way("enforce", _ENFORCE),
        Way("observe", {"mode": "observe"}, redirects=False),
        Way("drain", _ENFORCE, (_DRAIN,)),
        Way("back", _ENFORCE, (_DRAIN, _ENFORCE)),
        Way("budget", _ENFORCE, ({"budget": settings_value.MIN_BUDGET},)),
        Way("demoted", _ENFORCE, ({"demote_below": 1 << 30, "demote_after": 1},)),
    )
}
