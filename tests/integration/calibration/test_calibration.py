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

POSSIBLE = {*decision.SIZES, decision.NEVER}
MEASURE = """
import sys
sys.path.insert(0, sys.argv[1])
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration import measure
measure.measure(open(sys.argv[2], "rb").read(), {})
"""


def kept(whole):
    return manifest.current(str(whole.corner.state_dir))


def number(whole):
    """Which manifest it is: each that is written has a number of its own."""
    return os.readlink(whole.corner.state_dir / "current")


def test_it_is_measured_once_and_again_on_another_kernel(whole):
    check = whole.host(check=True, demote_below=None)
    assert check["calibration"]["source"] == "measured"
    assert check["settings"]["demote_below"] == record.LATER
    first = whole.enable(demote_below=None)[-1]
    document, made = kept(whole), number(whole)
    assert first["calibration"] == document["calibration"]
    assert document["calibration"]["source"] == "measured", document["calibration"]
    assert document["settings"]["demote_below"] == first["settings"]["demote_below"]
    assert document["settings"]["demote_below"] in POSSIBLE
    assert whole.status()["calibration"] == document["calibration"]
    assert whole.kinds() == []
    assert not whole.enable(demote_below=None)[-1]["changed"]
    assert not whole.host(check=True, demote_below=None)["changed"]
    assert number(whole) == made
    manifest.amend(str(whole.corner.state_dir), lambda changed: changed["calibration"].update(kernel="0.1"))
    assert "measured on kernel 0.1" in whole.ctl("status").stdout
    again = whole.host(check=True, demote_below=None)
    assert again["changed"]
    assert record.LATER in again["diff"]["after"]
    assert whole.host(demote_below=None)["changed"]
    assert kept(whole)["calibration"]["kernel"] == os.uname().release


def test_what_is_given_is_not_measured(whole):
    whole.enable(demote_below=None)
    for given in (12345, 0):
        result = whole.host(demote_below=given)
        assert result["changed"]
        assert result["settings"]["demote_below"] == given
        assert kept(whole)["calibration"] == {"source": "given"}
        assert not whole.host(demote_below=given)["changed"]
    assert "as given" in whole.ctl("status").stdout
    assert "as given" in whole.ctl("counters").stdout


def test_restore_and_drift_go_by_what_was_measured(whole):
    whole.enable(demote_below=None)
    measured = kept(whole)["settings"]["demote_below"]
    before = kept(whole)
    whole.corner.pin_dir.joinpath("settings").unlink()
    assert whole.kinds()
    assert whole.ctl("restore").returncode == 0
    assert whole.status()["as_manifest"]
    assert whole.status()["demote_below"] == measured
    assert kept(whole)["calibration"] == before["calibration"]


def test_a_host_that_cannot_be_measured_is_enabled_all_the_same(whole):
    *before, (name, arguments) = whole.tasks(demote_below=None)
    for each in before:
        assert not run_module(*each)["failed"]
    readonly = f'mount -o remount,bind,ro {cgroup2_mount()} && exec "$@"'
    result = run_module(name, arguments, prefix=("unshare", "--mount", "sh", "-c", readonly, "sh"))
    assert not result["failed"], result
    assert result["settings"]["demote_below"] == settings_value.DEFAULT_DEMOTE_BELOW
    assert result["calibration"]["source"] == "default"
    assert "could not be measured" in str(result.get("warnings")), result
    assert result["committed"]
    assert not whole.host(demote_below=None)["changed"]


def test_speed_shows_a_table_and_changes_nothing(whole):
    whole.enable()
    before = number(whole)
    done = whole.ctl("verify", "--speed")
    assert done.returncode == 0, done.stdout
    assert "one way, 64 KiB" in done.stdout
    assert "request of 64 bytes" in done.stdout
    assert number(whole) == before


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


def test_nothing_is_left(whole, built):
    with measuring(built["v1"]) as (process, cgroup):
        program = attached(cgroup)[0]
        assert process.wait(timeout=120) == 0
    assert not cgroup.parent.exists()
    whole.wait_for(lambda: is_gone(program))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_of_a_killed_one_an_empty_cgroup_is_left_until_the_next(whole, built, how):
    with measuring(built["v1"]) as (process, cgroup):
        program = attached(cgroup)[0]
        process.send_signal(how)
        process.wait(timeout=60)
    whole.wait_for(lambda: is_gone(program))
    whole.wait_for(lambda: not (cgroup / "cgroup.procs").read_text())
    with measuring(built["v1"]) as (_process, other):
        assert other != cgroup
        assert not cgroup.parent.exists()
