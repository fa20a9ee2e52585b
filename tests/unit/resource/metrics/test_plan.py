# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the timer for metrics is started or stopped, and what it has had written goes: a row for each case."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.metrics import plan as metrics

FILE, OTHER = "/prom/sockredir.prom", "/other/sockredir.prom"
NEVER = metrics.Observed(booted=True)
RUNS = metrics.Observed(True, True, FILE, True)


@pytest.mark.parametrize(
    ("wanted", "observed", "changed", "before", "after"),
    [
        (None, metrics.Observed(), False, [], []),
        (None, NEVER, False, [], []),
        (FILE, NEVER, True, [], ["start_timer"]),
        (FILE, RUNS, False, [], []),
        (FILE, RUNS, True, [], ["start_timer"]),
        (FILE, RUNS._replace(active=False), False, [], ["start_timer"]),
        (FILE, RUNS._replace(there=False), False, [], []),
        (None, RUNS, False, ["stop_timer", "forget_metrics"], []),
        (None, RUNS._replace(there=False), False, ["stop_timer"], []),
        (None, RUNS._replace(active=False), False, ["forget_metrics"], []),
        (OTHER, RUNS, True, ["stop_timer", "forget_metrics"], ["start_timer"]),
    ],
)
def test_steps(wanted, observed, changed, before, after):
    assert [step.verb for step in metrics.before_files(wanted, observed)] == before
    assert [step.verb for step in metrics.after_files(wanted, observed, changed)] == after


def test_what_is_forgotten_is_the_old_file():
    assert [step.subject for step in metrics.before_files(OTHER, RUNS)][-1] == FILE


@pytest.mark.parametrize(("wanted", "runs"), [(FILE, "active"), (OTHER, "stopped")])
def test_a_start_knows_whether_an_undo_has_to_stop_the_timer(wanted, runs):
    (step,) = metrics.after_files(wanted, RUNS, True)
    assert step.before == runs
