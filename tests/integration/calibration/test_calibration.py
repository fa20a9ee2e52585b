# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``demote_below`` found out by measuring this host: kept, not repeated, and nothing of it left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration import decision, measure, record
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.collection import ROOT
from support.host import cgroup2_mount
from support.module import run_module
from support.waiting import wait_for

POSSIBLE = {*decision.SIZES, decision.NEVER}
MEASURE = """
import sys
sys.path.insert(0, sys.argv[1])
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration import measure
measure.measure(open(sys.argv[2], "rb").read(), {})
"""


def kept(managed):
    return manifest.current(str(managed.sandbox.state_dir))


def number(managed):
    """Which manifest it is: each that is written has a number of its own."""
    return os.readlink(managed.sandbox.state_dir / "current")


def test_it_is_measured_once_and_again_on_another_kernel(managed):
    check = managed.host(check=True, demote_below=None)
    assert check["calibration"]["source"] == "measured"
    assert check["settings"]["demote_below"] == record.LATER
    first = managed.enable(demote_below=None)[-1]
    document, made = kept(managed), number(managed)
    assert first["calibration"] == document["calibration"]
    assert document["calibration"]["source"] == "measured", document["calibration"]
    assert document["settings"]["demote_below"] == first["settings"]["demote_below"]
    assert document["settings"]["demote_below"] in POSSIBLE
    assert managed.status()["calibration"] == document["calibration"]
    assert managed.kinds() == []
    assert not managed.enable(demote_below=None)[-1]["changed"]
    assert not managed.host(check=True, demote_below=None)["changed"]
    assert number(managed) == made
    manifest.amend(str(managed.sandbox.state_dir), lambda changed: changed["calibration"].update(kernel="0.1"))
    assert "measured on kernel 0.1" in managed.ctl("status").stdout
    again = managed.host(check=True, demote_below=None)
    assert again["changed"]
    assert record.LATER in again["diff"]["after"]
    assert managed.host(demote_below=None)["changed"]
    assert kept(managed)["calibration"]["kernel"] == os.uname().release


def test_what_is_given_is_not_measured(managed):
    managed.enable(demote_below=None)
    for given in (12345, 0):
        result = managed.host(demote_below=given)
        assert result["changed"]
        assert result["settings"]["demote_below"] == given
        assert kept(managed)["calibration"] == {"source": "given"}
        assert not managed.host(demote_below=given)["changed"]
    assert "as given" in managed.ctl("status").stdout
    assert "as given" in managed.ctl("counters").stdout


def test_restore_and_drift_go_by_what_was_measured(managed):
    managed.enable(demote_below=None)
    measured = kept(managed)["settings"]["demote_below"]
    before = kept(managed)
    managed.sandbox.pin_dir.joinpath("settings").unlink()
    assert managed.kinds()
    assert managed.ctl("restore").returncode == 0
    assert managed.status()["as_manifest"]
    assert managed.status()["demote_below"] == measured
    assert kept(managed)["calibration"] == before["calibration"]


def test_a_host_that_cannot_be_measured_is_enabled_all_the_same(managed):
    *before, (name, arguments) = managed.tasks(demote_below=None)
    for each in before:
        assert not run_module(*each)["failed"]
    readonly = f'mount -o remount,bind,ro {cgroup2_mount()} && exec "$@"'
    result = run_module(name, arguments, prefix=("unshare", "--mount", "sh", "-c", readonly, "sh"))
    assert not result["failed"], result
    assert result["settings"]["demote_below"] == settings_value.DEFAULT_DEMOTE_BELOW
    assert result["calibration"]["source"] == "default"
    assert "could not be measured" in str(result.get("warnings")), result
    assert result["committed"]
    assert not managed.host(demote_below=None)["changed"]


def test_speed_shows_a_table_and_changes_nothing(managed):
    managed.enable()
    before = number(managed)
    done = managed.ctl("verify", "--speed")
    assert done.returncode == 0, done.stdout
    assert "one way, 64 KiB" in done.stdout
    assert "request of 64 bytes" in done.stdout
    assert number(managed) == before


@contextlib.contextmanager
def measuring(path):
    """A process that compares, and the cgroup that it redirects in once programs are on it."""
    command = [sys.executable, "-c", MEASURE, str(ROOT / "tests"), str(path)]
    with subprocess.Popen(command) as process:
        try:
            cgroup = cgroup2_mount() / f"{measure.PREFIX}{process.pid}" / "redirected"
            until = time.monotonic() + 60
            while not attached(cgroup):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            yield process, cgroup
        finally:
            process.kill()


def attached(cgroup: Path):
    try:
        with attachments.opened("cgroup", str(cgroup)) as target:
            return libbpf.query(target, libbpf.ATTACH_CGROUP_SOCK_OPS).program_ids
    except (OSError, SockredirError):
        return []


def is_gone(program: int) -> bool:
    try:
        libbpf.program_by_id(program).close()
    except libbpf.BpfError:
        return True
    return False


def test_nothing_is_left(managed, built):
    with measuring(built["v1"]) as (process, cgroup):
        program = attached(cgroup)[0]
        assert process.wait(timeout=120) == 0
    assert not cgroup.parent.exists()
    wait_for(lambda: is_gone(program))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_of_a_killed_one_an_empty_cgroup_is_left_until_the_next(managed, built, how):
    with measuring(built["v1"]) as (process, cgroup):
        program = attached(cgroup)[0]
        process.send_signal(how)
        process.wait(timeout=60)
    wait_for(lambda: is_gone(program))
    # The processes of both cgroups, which end by themselves: a cgroup with one in it cannot be removed.
    wait_for(lambda: "populated 0" in (cgroup.parent / "cgroup.events").read_text())
    with measuring(built["v1"]) as (_process, other):
        assert other != cgroup
        assert not cgroup.parent.exists()
