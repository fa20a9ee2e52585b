# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""iperf3, whose sender and receiver count the bytes each for itself."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

_PORT = 8021


class _Server:
    """iperf3 closes its listening socket after each client and makes a new one; who connects meanwhile is reset."""

    def __init__(self, place):
        self.place = place
        self._clients = 0

    def expect(self):
        """Wait until it listens for the next client, which it says each time."""
        path = self.place.directory / "iperf3.log"
        deadline = time.monotonic() + 60 * self.place.patience
        while path.read_text(errors="replace").count("Server listening") <= self._clients:
            assert time.monotonic() < deadline, f"iperf3 does not listen: {self.place.log('iperf3')}"
            time.sleep(0.01)
        self._clients += 1


@contextlib.contextmanager
def serve(place):
    # A connection to see whether it answers would be its first client.
    with place.started(["iperf3", "-s", "--forceflush", "-p", str(_PORT)]):
        yield _Server(place)


def _transfer(server, options):
    """What is the same each time. When iperf3 ends, bytes are still on their way that it does not count."""
    place = server.place
    size = place.scaled(256 << 20, 16 << 20)
    server.expect()
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
    # With sendfile few messages of the transfer are redirected; only its end adds more.
    same(lambda server: _transfer(server, options.split()), after=8)
