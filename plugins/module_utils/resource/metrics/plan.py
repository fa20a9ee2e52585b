# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps start the timer of the metrics, or stop it and remove what it has had written. Pure."""

from __future__ import annotations

from typing import NamedTuple, Optional

from ...change.step import Plan, Step
from ...host.metrics_timer import TIMER


class Observed(NamedTuple):
    """:ivar booted: whether systemd runs this host.
    :ivar active: whether the timer runs.
    :ivar metrics: the file that the host's timer is for; None: it has none.
    :ivar there: whether that file is there.
    """

    booted: bool = False
    active: bool = False
    metrics: Optional[str] = None
    there: bool = False


def before_files(wanted: Optional[str], observed: Observed) -> Plan:
    """What comes before the unit files change or go: nobody may write the old metrics again.

    :param wanted: the file that is to be written; None: none.
    """
    if observed.metrics == wanted:
        return []
    steps = [Step("stop_timer", TIMER, "active", "stopped")] if observed.active else []
    if observed.metrics and observed.there:
        steps.append(Step("forget_metrics", observed.metrics, "metrics", None))
    return steps


def after_files(wanted: Optional[str], observed: Observed, changed: bool) -> Plan:
    """What comes after systemd has read the unit files.

    :param changed: whether one of the timer's was written.
    """
    if wanted is None or not observed.booted or (observed.active and not changed):
        return []
    runs = observed.active and observed.metrics == wanted
    return [Step("start_timer", TIMER, "active" if runs else "stopped", "started")]
