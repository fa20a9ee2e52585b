# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl mode``, ``restore`` and ``rollback``: each prints a line for each step that it has taken."""

from __future__ import annotations

from ..change.step import Plan, describe
from ..operation.mode import set_mode
from ..operation.restore import restore as restore_host
from ..operation.restore import rollback as roll_back_host
from . import context


def mode(state_dir: str, wanted: str, wait_seconds: float) -> int:
    steps = set_mode(state_dir, wanted, wait_seconds=wait_seconds)
    return _told(steps, f"the mode is {wanted} already")


def restore(state_dir: str, wait_seconds: float) -> int:
    return _told(restore_host(state_dir, wait_seconds=wait_seconds), "the host is as its manifest says")


def rollback(state_dir: str, wait_seconds: float) -> int:
    steps = roll_back_host(state_dir, wait_seconds=wait_seconds)
    return _told(steps, "the host was as its previous manifest says")


def _told(steps: Plan, nothing: str) -> int:
    context.show([describe(step) for step in steps] or [nothing])
    return context.OK
