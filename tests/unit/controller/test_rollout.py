# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches, budget and pace of a rollout."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.rollout import (
    RolloutError,
    batches,
    duration,
    progress,
    share,
    tally,
    time_left,
)


def outcomes(**counts):
    return [{"outcome": outcome, "canary": False} for outcome, count in counts.items() for _n in range(count)]


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [(0, 10, 0), ("3", 10, 3), ("5%", 200, 10), ("5%", 19, 0), (" 100 % ", 7, 7), ("12", 5, 12)],
)
def test_share(value, whole, number):
    assert share(value, whole, "sockredir_rollout_budget") == number


@pytest.mark.parametrize("value", ["", "five", "-1", "101%", "5 hosts", "1.5", True, None, [], "%", "9" * 10])
def test_share_refuses(value):
    with pytest.raises(RolloutError, match="^sockredir_rollout_budget is .* must be a number of hosts or a percentage"):
        share(value, 10, "sockredir_rollout_budget")


@pytest.mark.parametrize(
    ("serial", "hosts", "sizes"),
    [
        (["5%", "20%", "100%"], 200, [10, 40, 150]),
        (["5%", "20%", "100%"], 3, [1, 1, 1]),
        ([1], 3, [1, 1, 1]),
        ([1, 5], 13, [1, 5, 5, 2]),
        (["100%"], 4, [4]),
        (["5%"], 0, []),
        ([], 4, [4]),
        (["29%", 0], 100, [28, 72]),
    ],
)
def test_batches(serial, hosts, sizes):
    assert batches(serial, hosts) == sizes


def test_batches_refuses():
    with pytest.raises(RolloutError, match="^sockredir_rollout_serial is 'few'"):
        batches(["5%", "few"], 10)


@pytest.mark.parametrize(
    ("found", "budget", "spent", "why"),
    [
        ({"not_started": 10}, 0, 0, None),
        ({"enabled": 5, "restored": 1, "not_started": 4}, 1, 1, None),
        (
            {"enabled": 5, "restored": 1, "unreachable": 1, "not_started": 3},
            1,
            2,
            "2 of 10 hosts failed, the budget is 1",
        ),
        ({"failed": 1, "not_started": 1}, 0, 1, "1 of 2 hosts failed, the budget is 0"),
        # A batch that was put back for others' failures spends nothing by itself.
        ({"rolled_back": 4, "restored": 1}, 1, 1, None),
    ],
)
def test_budget(found, budget, spent, why):
    state = tally(outcomes(**found), budget)
    assert (state.spent, state.why_stop) == (spent, why)


def test_a_canary_that_fails_ends_it_whatever_the_budget():
    state = tally([{"outcome": "restored", "canary": True}, *outcomes(not_started=99)], 50)
    assert state.why_stop == "a canary failed"
    assert tally([{"outcome": "enabled", "canary": True}, *outcomes(restored=1)], 50).why_stop is None


def test_pace():
    assert time_left(0, 100, 50) is None
    assert time_left(20, 100, 60) == 240
    assert [duration(seconds) for seconds in (0, 45.4, 89, 90, 720, 5400, 11_100)] == [
        "0 s",
        "45 s",
        "89 s",
        "2 min",
        "12 min",
        "1 h 30 min",
        "3 h 05 min",
    ]


def test_progress():
    state = tally(outcomes(enabled=19, restored=1, not_started=80), 5)
    assert progress(state, 60) == "20 of 100 hosts done, 1 failed (budget 5), 60 s so far, about 4 min left"
    assert progress(tally(outcomes(not_started=3), 0), 0) == "0 of 3 hosts done, 0 failed (budget 0), 0 s so far"
