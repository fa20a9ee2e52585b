# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe the timer of the metrics and what it has had written. Reads only."""

from __future__ import annotations

import os
from typing import Optional

from ...host import metrics_timer, systemd
from ...state import manifest
from .plan import Observed


def observe(document: Optional[manifest.Manifest], unit_dir: str, wanted: Optional[str] = None) -> Observed:
    """What is there; systemd is asked only if there is, or is to be, a timer.

    :param wanted: the file that is to be written; None: none.
    :raises SockredirError: systemd does not answer.
    """
    unit = document["unit"] if document else {}
    written = unit.get("metrics") or metrics_timer.written_by(unit_dir)
    if not systemd.booted() or not (written or wanted):
        return Observed()
    there = written if written and os.path.lexists(written) else None
    return Observed(True, systemd.active(metrics_timer.TIMER), written, there is not None)
