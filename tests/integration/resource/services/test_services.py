# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services in the accelerated slice: part of the change, so a restart that fails leaves the host as it was.

No systemd runs here, so a stand-in answers; the scenario ``services`` does the same with the real one.
"""

from __future__ import annotations

import os
import uuid

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import states
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import change as attachment
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.host import cgroup2_mount, remove_cgroup
from support.systemd import Systemd

SERVICES = ["a.service", "b.service"]
RELOAD = ["daemon-reload"]


class InSlice:
    """A set-up host whose accelerated cgroup is a slice's."""

    def __init__(self, managed, init):
        self.managed, self.init = managed, init
        self.slice = f"sockredirtest{uuid.uuid4().hex[:8]}.slice"
        self.cgroup = cgroup2_mount() / self.slice
        self.state_dir = str(managed.sandbox.state_dir)

    def options(self, state="present", **options):
        return {**self.managed.here(state, **options), "cgroup": str(self.cgroup)}

    def attach(self):
        self.managed.enable_here()
        sockops = Wanted(str(self.managed.sandbox.pin_dir / "sockops"), "cgroup", str(self.cgroup), create_cgroup=True)
        attachment.ensure(sockops, self.state_dir)
        states.present(self.options(), False)

    def move(self, check=False):
        return states.present(self.options(services=SERVICES, restart_services=True), check)

    def everything(self):
        """All that a change may change."""
        state = self.init.state
        units = {str(path): path.read_text() for path in self.managed.unit_dir.rglob("*") if path.is_file()}
        return manifest.current(self.state_dir), units, state["slice"], state["runs_in"]


@pytest.fixture
def placed(managed, tmp_path, monkeypatch):
    init = Systemd(tmp_path, managed.unit_dir, cgroup2_mount(), SERVICES)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "booted", lambda: True)
    made = InSlice(managed, init)
    made.attach()
    init.calls()
    yield made
    states.absent(made.options("absent"), False)
    remove_cgroup(made.cgroup)


def shown(outcome):
    return [(step["kind"], step["subject"], step["before"], step["after"]) for step in states.show(outcome.steps)]


def kept(outcome):
    """What is done beside removing things; the slice's cgroup can only be said to go once nothing is in it."""
    return [each for each in shown(outcome) if each[0] != "removed"]


def test_services_move_with_the_change_and_back(placed):
    foretold = placed.move(check=True)
    assert placed.init.calls() == []
    done = placed.move()
    assert shown(done) == shown(foretold)
    assert [step.verb for step in done.steps] == [
        "file",
        "file",
        "reload",
        "start_slice",
        "restart",
        "restart",
        "manifest",
    ]
    assert placed.init.calls() == [
        RELOAD,
        ["start", "--", placed.slice],
        *[["restart", "--", name] for name in SERVICES],
    ]
    assert done.result["waiting_services"] == foretold.result["waiting_services"] == []
    assert placed.init.state["runs_in"] == dict.fromkeys(SERVICES, placed.slice)
    assert manifest.current(placed.state_dir)["unit"]["services"] == SERVICES
    again = placed.move()
    assert again.steps == []
    assert placed.init.calls() == []


def test_who_may_not_be_restarted_waits(placed):
    done = states.present(placed.options(services=SERVICES), False)
    assert done.result["waiting_services"] == SERVICES
    assert [step.verb for step in done.steps] == ["file", "file", "reload", "start_slice", "manifest"]
    assert placed.init.state["runs_in"] == dict.fromkeys(SERVICES, "system.slice")
    assert placed.move().result["waiting_services"] == []

    # As all is removed, too: they stay in the cgroup, and the host's operator is told.
    placed.init.calls()
    for check in (True, False):
        done = states.absent(placed.options("absent"), check)
        assert done.result["waiting_services"] == SERVICES
        assert done.warnings == ["these services change cgroup at their next start: a.service, b.service"]
        assert "restart" not in [step.verb for step in done.steps]
    assert placed.init.calls() == [RELOAD]
    assert placed.init.state["runs_in"] == dict.fromkeys(SERVICES, placed.slice)
    assert placed.managed.listing() == []


def test_a_restart_that_fails_leaves_the_host_as_it_was(placed):
    before = placed.everything()
    placed.init.break_in(placed.slice, "b.service")
    with pytest.raises(SockredirError, match=r"^services: b.service cannot be restarted: .*Job for b.service failed"):
        placed.move()
    assert placed.everything() == before
    # The one that had been restarted already, and the one that failed, run again where they were.
    assert placed.init.calls()[-2:] == [RELOAD, ["restart", "--", *SERVICES]]
    assert placed.managed.drift_here() == []


def test_a_commit_that_fails_leaves_the_services_where_they_were(placed, monkeypatch):
    before = placed.everything()

    def full(_state_dir):
        raise SockredirError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(manifest, "commit", full)
        with pytest.raises(SockredirError, match="the disk is full"):
            placed.move()
    assert placed.everything() == before


def test_disabling_takes_the_services_out(placed):
    placed.move()
    placed.init.calls()
    options = placed.options("absent", restart_services=True)
    foretold = states.absent(options, True)
    assert (foretold.result["waiting_services"], foretold.warnings) == ([], [])
    assert placed.init.calls() == []
    done = states.absent(options, False)
    assert kept(done) == kept(foretold)
    assert [call[0] for call in placed.init.calls()] == ["daemon-reload", "restart", "restart", "stop"]
    assert done.result["waiting_services"] == []
    assert placed.init.state["runs_in"] == dict.fromkeys(SERVICES, "system.slice")
    assert not placed.cgroup.exists()
    assert placed.managed.listing() == []


def test_a_restart_that_fails_while_disabling_leaves_the_host_as_it_was(placed):
    placed.move()
    before = placed.everything()
    placed.init.break_in("system.slice", "b.service")
    with pytest.raises(SockredirError, match="b.service cannot be restarted"):
        states.absent(placed.options("absent", restart_services=True), False)
    assert placed.everything() == before
    assert placed.managed.drift_here() == []
    placed.init.break_in("", "")
