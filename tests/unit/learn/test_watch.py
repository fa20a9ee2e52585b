# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For how much of the time a host with very many messages is watched."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import watch


@pytest.mark.parametrize("cpus", [1, 2, 64])
@pytest.mark.parametrize("rate", [0, 1000, 100000, 1000000])
def test_watching_stays_within_its_share_of_the_cpus(cpus, rate):
    share = watch.share_of_time(rate, cpus)
    assert 0 < share <= 1
    assert share * rate * watch.MESSAGE_NS / 1e9 <= watch.SHARE * cpus + 1e-9


def test_it_looks_away_only_if_it_must():
    assert watch.share_of_time(70000, 2) == 1
    assert watch.share_of_time(150000, 2) == pytest.approx(0.5)
