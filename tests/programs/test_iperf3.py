# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""iperf3, whose sender and receiver count the bytes each for itself."""

from __future__ import annotations

import contextlib
import json

import pytest

_PORT = 8021


@contextlib.contextmanager
def serve(place):
    with place.serving(["iperf3", "-s", "-p", str(_PORT)], _PORT):
        yield place


def _transfer(place, options):
    """What is the same each time. iperf3 ends with bytes on their way that nobody counts."""
    size = place.scaled(256 << 20, 16 << 20)
    done = place.run(["iperf3", "-J", "-c", "127.0.0.1", "-p", str(_PORT), "-n", str(size), *options])
    report = json.loads(done.out)
    end = report["end"]
    pairs = [
        (end[f"sum_sent{way}"], end[f"sum_received{way}"]) for way in ("", "_bidir_reverse") if f"sum_sent{way}" in end
    ]
    counted = [0 < received["bytes"] <= sent["bytes"] for sent, received in pairs]
    return done.exit, report.get("error"), counted, sum(sent["bytes"] for sent, _received in pairs) >= size


@pytest.mark.parametrize("options", ["", "-R", "-P 8", "--bidir", "-Z", "-l 1000"])
def test_transfer(same, options):
    # With sendfile the transfer is TCP's after 18 messages and connections; only its end adds more.
    same(lambda place: _transfer(place, options.split()), after=8)
