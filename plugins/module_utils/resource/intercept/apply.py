# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a plan for interception rules, each with its undo."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...datapath import intercept_live
from ...state import manifest
from .plan import NewRules


def write(pin_dir: str) -> Handler:
    """The handler that tells the programs."""

    def run(step: Step) -> Undo:
        new = step.need(NewRules)
        before = intercept_live.read_rules(pin_dir) or []
        intercept_live.reset_counters(pin_dir, new.fresh)
        intercept_live.write_rules(pin_dir, new.rules)
        return lambda: intercept_live.write_rules(pin_dir, before)

    return run


def record(state_dir: str, pin_dir: str, rules: List[Dict[str, Any]]) -> Handler:
    """The handler that has the manifest say so, and makes that final."""

    def change(document: manifest.Manifest) -> None:
        document["intercepts"] = rules
        document["pin_dir"] = document["pin_dir"] or pin_dir

    def run(_step: Step) -> Undo:
        saved = manifest.snapshot(state_dir)
        manifest.edit(state_dir, change)
        manifest.commit(state_dir)
        return _put_back(state_dir, saved)

    return run


def _put_back(state_dir: str, saved: manifest.Snapshot) -> Callable[[], None]:
    return lambda: manifest.put_back(state_dir, saved)
