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


@pytest.mark.parametrize(
    ("below", "calibration", "said"),
    [
        (65536, FASTER, ["10.0 us, 1.5 times as fast; by plain TCP 15.0 us", "from 64 KiB per message up"]),
        (1 << 30, FASTER, ["1.5 times as fast", "left to TCP, which does them better here (measured"]),
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
