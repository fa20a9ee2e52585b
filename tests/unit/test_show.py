# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``./run enable`` tells a person of its findings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "scripts" / "show.py"


def load():
    spec = importlib.util.spec_from_file_location("show", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


show = load()
FASTER = {"source": "measured", "request_us": {"plain": 15.0, "redirected": 10.0}}
SLOWER = {"source": "measured", "request_us": {"plain": 10.0, "redirected": 15.0}}

MANY = {**FASTER, "many_us": {"plain": 10.0, "redirected": 5.0}}
RATIOS = {"source": "measured", "ratios": {"131072": 2.04, "32768": 1.3, "65536": 1.52, "4096": 0.7}}


@pytest.mark.parametrize(
    ("below", "calibration", "said"),
    [
        (65536, MANY, ["response: 10.0 us, 1.5", "many connections: 5.0 us, 2.0 times as fast; by plain TCP 10.0 us"]),
        (65536, FASTER, ["10.0 us, 1.5 times as fast; by plain TCP 15.0 us", "from 64 KiB per message up"]),
        (1 << 30, FASTER, ["1.5 times as fast", "left to TCP, which is faster here (measured"]),
        (65536, SLOWER, ["15.0 us; by plain TCP 10.0 us", "from 64 KiB"]),
        (30000, {"source": "default", "problem": "no room"}, ["from 30000 bytes", "could not be measured: no room"]),
        (0, {"source": "given"}, ["whatever the size of a message (as given)"]),
        (30000, {}, ["from 30000 bytes", "as it was before"]),
    ],
)
def test_findings(below, calibration, said):
    text = "\n".join(show.findings(below, calibration))
    for part in said:
        assert part in text


def test_no_figure_says_that_it_became_slower():
    assert "times" not in "\n".join(show.findings(65536, SLOWER))


@pytest.mark.parametrize(
    ("below", "said"),
    [
        (65536, ["    1.5 times as fast with 64 KiB, 2.0 times as fast with 128 KiB per message"]),
        (40000, ["    1.5 times as fast with 64 KiB, 2.0 times as fast with 128 KiB per message"]),
        (131072, ["    2.0 times as fast with 128 KiB per message"]),
        (1 << 30, []),
    ],
)
def test_gains_are_told_of_those_streams_that_are_redirected(below, said):
    assert show.findings(below, RATIOS)[1:] == said


def test_no_gain_is_told_of_streams_that_are_slower_though_redirected():
    assert "0.7" not in "\n".join(show.findings(0, RATIOS))
    assert "1.3 times as fast with 32 KiB" in show.findings(0, RATIOS)[1]
