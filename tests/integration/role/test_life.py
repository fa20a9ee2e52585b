# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of an enabled host: nothing, a look ahead, enabled, again, used, disabled, again.

The tests run in the order they are written and share one site.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import live
from support.playbook import Played
from support.waiting import wait_for

TRACE_LINE = re.compile(r"^(\S.*)-(\d+) \[(\d{3})\] \d+\.\d{6}: (ipv4|ipv6) op=([45]) (\S+):(\d+) --> (\S+):(\d+)$")


def packages() -> str:
    """Those that the role may install, with their states."""
    names = ("libbpf1", "libbpf-dev", "linux-libc-dev", "clang", "python3-bpfcc")
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def show_times(played: Played, title: str, capsys) -> None:
    with capsys.disabled():
        print(f"\n{title}: seconds per task on the host")
        for task in played.touches:
            print(f"  {task['seconds']:6.2f}  {task['task']}")


def test_a_look_ahead_changes_nothing(site):
    before = packages()
    played = site.enable("--check").ok()
    assert not site.traces()
    assert packages() == before
    assert played.changed == [
        "Create the source directory",
        "Create the pin directory",
        "Load the programs",
        "Attach the programs",
        "Write the settings, the tool and the systemd unit",
    ]
    for subject in (site.variables["sockredir_pin_dir"], str(site.cgroup), "sockredirctl"):
        assert subject in played.output, f"the diff says nothing of {subject}"


def test_disable_of_a_bare_host_changes_nothing(site):
    assert not site.disable().ok().changed
    assert not site.traces()


def test_enable(site, capsys):
    played = site.enable().ok()
    show_times(played, "enable", capsys)
    assert played.changed
    status = subprocess.run(site.ctl("status"), capture_output=True, text=True, timeout=60, check=False)
    assert status.returncode == 0, status.stdout + status.stderr


def test_enable_again_changes_nothing(site, capsys):
    before = ids(site)
    played = site.enable().ok()
    show_times(played, "enable of an enabled host", capsys)
    assert not played.changed
    assert ids(site) == before
    modules = [task["action"] for task in played.touches]
    expected = ["sockmap_info", "sockmap_program", "sockredir_host"]
    assert modules == [f"ebpf.sockredir.{name}" for name in expected]


def test_a_pin_directory_that_others_may_enter_is_closed_again(site):
    pin_dir = Path(site.variables["sockredir_pin_dir"])
    pin_dir.chmod(0o755)
    assert site.enable().ok().changed == ["Create the pin directory"]
    assert pin_dir.stat().st_mode & 0o777 == 0o700


def ids(site) -> str:
    manifest = json.loads((site.sandbox.state_dir / "current").read_text())
    programs = {name: (one["program_ids"], one["map_ids"]) for name, one in manifest["programs"].items()}
    links = [(one["program_id"], one.get("map_id"), one.get("link_id")) for one in manifest["attachments"]]
    assert programs
    assert links
    return json.dumps([programs, links], sort_keys=True)


def test_a_look_ahead_at_an_enabled_host_is_calm(site):
    assert not site.enable("--check").ok().changed


def test_verify_says_so(site):
    report = site.ask("verify")
    assert report["wrong"] is None
    assert all(pair["by_tcp"] == 0 and pair["intact"] for pair in report["pairs"])


@pytest.mark.parametrize(
    ("options", "address", "family"),
    [((), "127.0.0.1", "ipv4"), (("-6",), "::1", "ipv6")],
    ids=["ipv4 to a dual-stack server", "ipv6"],
)
def test_iperf3_is_redirected(site, netns, options, address, family):
    # Far below what the machine can do: while a reader is kept from the CPU for long, messages go by TCP, rightly.
    rate, amount = "200M", 100_000_000
    port = "25101" if family == "ipv4" else "25102"
    with tracing(site) as lines, serving(site, netns, port):
        before, counted = netns.lo_bytes(), redirected_bytes(site)
        client = ["iperf3", "-c", address, *options, "-b", rate, "-n", str(amount), "-l", "64k", "-p", port, "-J"]
        report = json.loads(netns.run(*site.ctl("exec"), *client))
        crossed, past_it = netns.lo_bytes() - before, redirected_bytes(site) - counted
    moved = report["end"]["sum_received"]["bytes"]
    assert moved > 0.9 * amount
    assert past_it + crossed >= moved, "every byte went one of the two ways"
    assert past_it > 0.5 * moved, f"{crossed} of {moved} bytes crossed lo"
    events = [TRACE_LINE.match(line) for line in lines]
    assert all(events), lines
    assert sorted(event[5] for event in events) == ["4", "4", "5", "5"], lines
    assert {event[4] for event in events} == {family}
    assert {event[6].strip("[]") for event in events} == {address}
    assert all(port in (event[7], event[9]) for event in events)
    assert {event[1] for event in events} == {"iperf3"}


def redirected_bytes(site):
    return site.ask("counters")["counters"]["redirected"]["bytes"]


@contextlib.contextmanager
def serving(site, netns, port):
    command = [*netns.prefix, *site.ctl("exec", "iperf3", "-s", "-1", "-p", port, "--forceflush")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        for line in server.stdout:
            if "listening" in line:
                break
        try:
            yield
            server.stdout.read()
            assert server.wait(30) == 0
        finally:
            server.kill()


@contextlib.contextmanager
def tracing(site):
    """The lines that the tool prints in the meantime."""
    lines = []
    with subprocess.Popen(site.ctl("trace"), stdout=subprocess.PIPE, text=True) as tracer:
        try:
            _wait_until_traced(site)
            yield lines
        finally:
            tracer.send_signal(signal.SIGINT)
            lines += tracer.communicate(timeout=30)[0].splitlines()


def _wait_until_traced(site):
    """The programs write events from then on; the tracer prints those that are left when it is asked to end."""
    pin_dir = site.variables["sockredir_pin_dir"]
    wait_for(lambda: live.read_settings(pin_dir).settings.trace_until > time.monotonic_ns())


def test_audit_of_an_enabled_host_is_clean(site, capsys):
    played = site.play("audit").ok()
    show_times(played, "audit", capsys)
    assert not played.changed
    assert len(played.touches) <= 3


def test_disable_leaves_nothing(site, capsys):
    before = packages()
    played = site.disable().ok()
    show_times(played, "disable", capsys)
    assert played.changed
    assert site.traces() == []
    assert packages() == before


def test_disable_again_changes_nothing(site):
    assert not site.disable().ok().changed
    assert site.traces() == []
