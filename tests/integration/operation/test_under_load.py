# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's whole life under load: no request fails, no byte is wrong."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import live
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import objects
from support.connection import connection
from support.load import load
from support.waiting import wait_for


def talks(pair) -> bool:
    """A message each way, and whether both arrived whole."""
    pair.send("client", 5000)
    pair.send("server", 5000)
    return pair.receive("server", 5000) and pair.receive("client", 5000)


@pytest.mark.parametrize("method", ["link", "legacy"])
def test_upgrade_rollback_drain_enforce_disable(managed, method):
    managed.enable("v1", method=method if method == "legacy" else "auto")
    peers, first = managed.id("peers"), managed.id("verdict")
    seen = {first}
    with load(managed.sandbox.cgroup) as running:
        running.works()
        redirected = live.counters(str(managed.sandbox.pin_dir))["redirected"].events
        assert redirected > 0

        for version in ("v2", "v3"):
            results = managed.enable(version, method=method if method == "legacy" else "auto")
            assert results[0]["changed"]
            assert managed.id("verdict") not in seen
            seen.add(managed.id("verdict"))
            assert managed.id("peers") == peers
            running.works()
            assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout
        draining = {entry["program_id"] for entry in managed.status()["draining"]}
        assert first in draining, "the long streams began on v1"

        newest = managed.pin("verdict").object.digest
        done = managed.ctl("rollback")
        assert done.returncode == 0, done.stderr
        assert managed.pin("verdict").object.digest != newest
        assert managed.id("peers") == peers
        seen.add(managed.id("verdict"))
        running.works()
        assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout

        assert managed.ctl("mode", "drain").returncode == 0
        running.works()
        added = live.counters(str(managed.sandbox.pin_dir))["socket_added"].events
        running.works()
        assert live.counters(str(managed.sandbox.pin_dir))["socket_added"].events == added
        assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout
        assert managed.id("peers") == peers

        assert managed.ctl("mode", "enforce").returncode == 0
        before = live.counters(str(managed.sandbox.pin_dir))["redirected"].events
        running.works()
        assert live.counters(str(managed.sandbox.pin_dir))["redirected"].events > before
        assert managed.id("peers") == peers

        with connection(managed.sandbox.cgroup) as idle:  # those that send leave the map at once
            assert talks(idle) and idle.redirected("client")
            gone = managed.disable()
            assert not gone["failed"], gone
            assert {entry["program_id"] for entry in gone["draining"]} & seen
            assert talks(idle)
        running.works()
        end = running.stop()
        assert end["failures"] == []
    wait_for(lambda: not objects.alive(seen))
    assert not managed.disable()["changed"]
