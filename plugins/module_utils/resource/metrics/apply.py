# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of the metrics' plan, each with its undo."""

from __future__ import annotations

import os
from typing import Dict

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...host import files, systemd
from ...host.metrics_timer import SERVICE, TIMER


def handlers() -> Dict[str, Handler]:
    """By verb."""
    return {"stop_timer": _stop, "forget_metrics": _forget, "start_timer": _start}


def _stop(_step: Step) -> Undo:
    systemd.stop(TIMER, SERVICE)
    return lambda: systemd.start(TIMER)


def _forget(step: Step) -> Undo:
    return files.change(step.subject, None, os.path.dirname(step.subject))


def _start(step: Step) -> Undo:
    """Restarts it if it runs: a timer uses its unit file as it was when it was started."""
    systemd.restart([TIMER])
    return None if step.before == "active" else lambda: systemd.stop(TIMER, SERVICE)
