# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which speeds a host has, and when they hold."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration import record
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import speeds, speeds_here

FIGURES = {
    "request_us": {"plain": 20.0, "redirected": 16.0},
    "many_us": {"plain": 12.0, "redirected": 9.0},
    "ratios": {"65536": 2.0},
    "plain_us": {"65536": 30.0},
    "stream_from": 65536,
}


def kept(**changes):
    return {"source": "measured", **record.valid_for(None), **FIGURES, **changes}


def test_what_was_measured_here():
    found = speeds.of_record(kept(), speeds.ENABLED)
    assert found == speeds.Speeds("enabled", (20.0, 16.0), (12.0, 9.0), {65536: (30.0, 15.0)}, 65536)
    assert speeds.as_json(found)["streams_us"] == {"65536": {"plain": 30.0, "redirected": 15.0}}


@pytest.mark.parametrize("name", ["kernel", "cpu"])
def test_it_holds_for_one_kernel_and_cpu(name):
    assert speeds.of_record(kept(**{name: "another"}), speeds.ENABLED) is None


@pytest.mark.parametrize("name", ["request_us", "many_us", "ratios", "plain_us"])
def test_an_earlier_version_has_measured_less(name):
    found = kept()
    del found[name]
    assert speeds.of_record(found, speeds.ENABLED) is None


def test_where_nothing_can_be_measured_it_is_an_estimate_and_says_why(tmp_path):
    found = speeds_here.of_host(str(tmp_path), str(tmp_path / "sockredir.bpf.o"))
    assert found.source == speeds.TABLE
    assert "sockredir.bpf.o" in found.problem
