# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timer for metrics: part of the change, of its undo and of drift, and gone with what it wrote when disabled.

No systemd runs here, so a stand-in answers, and the test runs what the unit would.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import metrics_timer, systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import states
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.host import cgroup2_mount
from support.systemd import Systemd

TIMER, SERVICE = "sockredir-metrics.timer", "sockredir-metrics.service"
RELOAD, START = ["daemon-reload"], ["restart", "--", TIMER]
STOP = ["stop", "--", TIMER, SERVICE]


class Measured:
    """A set-up host with two directories of which its node exporter may read one."""

    def __init__(self, managed, init, directory):
        self.managed, self.init = managed, init
        self.directories = [directory / "one", directory / "two"]
        for each in self.directories:
            each.mkdir()

    def present(self, directory, check=False):
        return states.present(self.managed.here(textfile_dir=directory and str(directory)), check)

    def run_service(self):
        """What systemd would run."""
        unit = (self.managed.unit_dir / SERVICE).read_text()
        subprocess.run(re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)[0].split(), check=True)

    def units(self):
        return {path: path.read_text() for path in self.managed.unit_dir.rglob("*") if path.is_file()}


@pytest.fixture
def measured(managed, tmp_path, monkeypatch):
    init = Systemd(tmp_path, managed.unit_dir, cgroup2_mount(), [])
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "booted", lambda: True)
    managed.enable_here()
    init.calls()
    return Measured(managed, init, tmp_path)


def verbs(outcome):
    return [step.verb for step in outcome.steps]


def test_the_life_of_the_timer(measured):
    one, two = measured.directories
    foretold = measured.present(one, check=True)
    assert measured.init.calls() == []
    assert verbs(measured.present(one)) == verbs(foretold) == [*["file"] * 3, "reload", "start_timer", "manifest"]
    assert measured.init.calls() == [RELOAD, START]
    assert measured.managed.drift_here() == [] == measured.present(one).steps

    measured.run_service()
    written = one / "sockredir.prom"
    assert os.listdir(one) == [written.name]
    assert written.stat().st_mode & 0o777 == 0o644
    assert "\nsockredir_flows 0\n" in written.read_text()
    assert written.read_text().endswith("\n")

    os.unlink(metrics_timer.paths(str(measured.managed.unit_dir))[2])
    assert [(each["kind"], os.path.basename(each["subject"])) for each in measured.managed.drift_here()] == [
        ("unit_disabled", TIMER)
    ]
    assert verbs(measured.present(one)) == ["file", "reload", "start_timer"]
    assert measured.managed.drift_here() == []
    measured.init.calls()

    moved = ["stop_timer", "forget_metrics", "file", "reload", "start_timer", "manifest"]
    assert verbs(measured.present(two)) == moved
    assert measured.init.calls() == [STOP, RELOAD, START]
    assert os.listdir(one) == []
    measured.run_service()
    assert os.listdir(two) == ["sockredir.prom"]

    systemd.stop(TIMER, SERVICE)
    assert verbs(measured.present(two)) == ["start_timer"]
    measured.init.calls()

    # A lost manifest is no obstacle.
    measured.managed.sandbox.state_dir.joinpath("current").unlink()
    foretold = states.absent(measured.managed.here("absent"), True)
    done = measured.managed.disable_here()
    own = [verb for verb in verbs(done) if verb.startswith("metrics ")]
    assert own == [verb for verb in verbs(foretold) if verb.startswith("metrics ")]
    assert own == ["metrics stop_timer", "metrics forget_metrics"]
    assert measured.init.calls() == [STOP, RELOAD]
    assert os.listdir(two) == []
    assert measured.managed.listing() == []


def test_without_the_option_the_timer_goes_and_a_failure_leaves_it_running(measured, monkeypatch):
    one = measured.directories[0]
    measured.present(one)
    measured.run_service()
    before = measured.units(), manifest.current(str(measured.managed.sandbox.state_dir))
    written = (one / "sockredir.prom").read_text()
    measured.init.calls()

    def full(_state_dir):
        raise SockredirError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(manifest, "commit", full)
        with pytest.raises(SockredirError, match="the disk is full"):
            measured.present(None)
    assert (measured.units(), manifest.current(str(measured.managed.sandbox.state_dir))) == before
    assert (one / "sockredir.prom").read_text() == written
    # The unit files are back before the timer is.
    assert measured.init.calls() == [STOP, RELOAD, RELOAD, ["start", "--", TIMER]]

    steps = ["stop_timer", "forget_metrics", *["file"] * 3, "reload", "manifest"]
    assert verbs(measured.present(None)) == steps
    assert os.listdir(one) == []
    assert measured.units() == {}
    assert measured.present(None).steps == []
