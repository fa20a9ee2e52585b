# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a version with two programs to one with three and back, with a live connection."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import restore
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.connection import connection
from support.waiting import wait_for


def received_by(managed):
    """What the map has for bytes that come by TCP."""
    peers = str(managed.sandbox.pin_dir / "peers")
    with attachments.opened("map", peers) as target:
        return libbpf.query(target, hooks.SK_SKB.attach_type).program_ids


def as_1_0(managed):
    """Set up by the first version: two programs, and a manifest that names no attach types."""
    managed.enable_here("v0")

    def older(document):
        for entry in document["attachments"]:
            del entry["attach_type"]

    manifest.amend(str(managed.sandbox.state_dir), older)
    assert managed.drift_here() == []


def goes_on(pair):
    for end, other in (("client", "server"), ("server", "client")):
        pair.send(end, 70_000)
        assert pair.receive(other, 70_000)
        assert pair.redirected(end)


def test_the_upgrade_adds_the_third_program_and_the_roll_back_takes_it_away(managed):
    as_1_0(managed)
    state_dir = str(managed.sandbox.state_dir)
    with connection(managed.sandbox.cgroup) as old:
        goes_on(old)
        checked = managed.enable_here("v1", check=True)
        assert any(checked)
        assert managed.drift_here() == []
        managed.enable_here("v1")
        assert not any(managed.enable_here("v1"))
        assert received_by(managed) == [managed.id("receive")]
        goes_on(old)
        with connection(managed.sandbox.cgroup) as new:
            goes_on(new)
            restore.rollback(state_dir)
            assert received_by(managed) == []
            assert managed.pin("receive") is None
            assert len(manifest.current(state_dir)["attachments"]) == 2
            assert managed.drift_here() == []
            assert not any(managed.enable_here("v0"))
            goes_on(new)
        goes_on(old)
        restore.rollback(state_dir)
        assert received_by(managed) == [managed.id("receive")]
        assert managed.drift_here() == []
        goes_on(old)


@pytest.mark.parametrize("method", ["auto", "link"])
def test_restore_attaches_it_again(managed, method):
    if method == "link" and not attachments.has_links(hooks.SK_SKB):
        pytest.skip("this kernel has no links to maps")
    managed.enable("v1", method=method)
    for name in [path.name for path in managed.sandbox.pin_dir.iterdir()]:
        if name == "receive" or name.startswith("link_receive"):
            (managed.sandbox.pin_dir / name).unlink()
    if method == "auto":
        attachments.detach_legacy(str(managed.sandbox.pin_dir / "peers"), received_by(managed)[0])
    wait_for(lambda: received_by(managed) == [])
    assert {each["kind"] for each in managed.drift_here()} >= {"pin_missing", "receive_lost"}
    restore.restore(str(managed.sandbox.state_dir))
    assert received_by(managed) == [managed.id("receive")]
    assert managed.drift_here() == []
