# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn on this kernel: it sees what programs do, and nothing else; leaves nothing; runs once at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from support.host import cgroup2_mount, in_cgroup, sandbox
from support.learning import ATTACHED, SOURCE, Learn, by_port, learning, tool
from support.waiting import wait_for

BEHAVE = Path(__file__).parent / "behave.py"
#: Questions and answers until its standard input ends.
TALKER = """
import select, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
while not select.select([sys.stdin], [], [], 0)[0]:
    client.sendall(b"question")
    server.recv(100)
    server.sendall(b"answer")
    client.recv(100)
"""

VERDICTS = {
    "ordinary": ("accelerate", []),
    "spliced": ("leave", ["splice-read"]),
    "sent_by_splice": ("accelerate", []),
    "waitall": ("leave", ["waitall"]),
    "peeked": ("accelerate", []),
    "low_water": ("leave", ["rcvlowat"]),
    "urgent": ("leave", ["urgent-data"]),
    "zero_copy": ("leave", ["zerocopy-completion"]),
    "peek_offset": ("leave", ["peek-offset"]),
    "timestamps": ("leave", ["timestamps"]),
    "timestamping": ("leave", ["timestamps"]),
    "kernel_tls": ("leave", ["ktls"]),
    "ring": ("accelerate", []),
    "ring_waitall": ("leave", ["uring-waitall"]),
    "ring_zero_copy": ("leave", ["zerocopy-completion"]),
    "interrupted": ("leave", ["blocked-recv"]),
    "two_slept": ("leave", ["blocked-recv"]),
    "taken_in_turns": ("accelerate", []),
    "killed_in_recv": ("accelerate", []),
    "idle": ("no-gain", []),
    "one_way": ("no-gain", []),
    "v6": ("accelerate", []),
    "other_loopback": ("accelerate", []),
}

#: What a kernel may be without.
MISSING = {
    "peek_offset": "SO_PEEK_OFF",
    "kernel_tls": "TLS",
    "ring": "io_uring",
    "ring_waitall": "io_uring",
    "ring_zero_copy": "io_uring",
}


def behaving(cgroup):
    """The process, when it has done all; its ports by the names of the ways."""
    command = in_cgroup(cgroup, [sys.executable, str(BEHAVE)])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ports = {}
    for line in process.stdout:
        name, port = line.split()
        ports[name] = int(port)
        if name == "done":
            break
    return process, ports


@pytest.fixture(scope="module")
def learned(learn_object, tmp_path_factory):
    """What was learned of a process that behaves in every way, by way; and all of the report."""
    with sandbox(tmp_path_factory.mktemp("behave")) as own:
        options = ("--cgroup", str(own.cgroup), "--source", learn_object, "--seconds", "300", "--estimate", "--json")
        with learning(*options) as run:
            process, ports = behaving(own.cgroup)
            try:
                text = run.end()
            finally:
                process.communicate()
    found = by_port(text)
    return {name: found.get(port) for name, port in ports.items()}, json.loads(text)


def test_every_way_is_tried(learned):
    assert set(learned[0]) == {*VERDICTS, "done"}


@pytest.mark.parametrize("name", list(VERDICTS))
def test_ways(learned, name):
    entry = learned[0][name]
    if name in MISSING and entry is None:
        pytest.skip(f"this kernel has no {MISSING[name]}")
    assert (entry["verdict"], entry["reasons"]) == VERDICTS[name], entry
    assert entry["connections"] == 1
    assert all(word.startswith("python") for word in entry["programs"])
    assert (entry["gain"] is not None) == (entry["verdict"] == "accelerate")


def test_counts_are_exact(learned):
    entry = learned[0]["ordinary"]
    assert entry["bytes"] == 30 * (len("question") + len("answer"))
    server, client = sorted(entry["details"], key=lambda detail: detail["end"] == "client")
    assert (server["end"], client["end"]) == ("server", "client")
    assert (server["sent_messages"], server["received_messages"], server["answers"]) == (30, 30, 30)
    assert (client["sent_messages"], client["received_messages"], client["answers"]) == (30, 30, 29)
    assert (server["sizes"], client["sizes"]) == ({"4": 30}, {"8": 30})
    assert entry["local_share"] == 1.0


def test_the_gain_is_measured_on_this_host(host, redirection_beside):
    talker = subprocess.Popen(in_cgroup(host.cgroup, [sys.executable, "-c", TALKER]), stdin=subprocess.PIPE)
    try:
        with learning("--cgroup", str(host.cgroup), "--source", redirection_beside, "--seconds", "1", "--json") as run:
            out, err = run.process.communicate(timeout=120)
    finally:
        talker.communicate()
    assert (run.process.returncode, err) == (0, "")
    speeds = json.loads(out)["speeds"]
    assert (speeds["source"], speeds["problem"]) == ("measured", "")
    assert all(cost > 0 for cost in (*speeds["request_us"].values(), *speeds["many_us"].values()))
    assert {entry["gain_source"] for entry in json.loads(out)["ports"]} <= {"measured", None}
    assert list(cgroup2_mount().glob("sockredir-calibration-*")) == []


def test_what_cannot_be_measured_is_an_estimate_and_said_so(learned):
    assert learned[1]["speeds"]["source"] == "table"
    assert {entry["gain_source"] for entry in learned[1]["ports"]} == {"table", None}


def test_the_time_of_an_answer_is_seen_at_the_clients_end(learned):
    _server, client = sorted(learned[0]["ordinary"]["details"], key=lambda detail: detail["end"] == "client")
    assert client["reply_us"] > 0
    assert learned[0]["ordinary"]["took_us"] <= client["reply_us"]
    assert 0 < learned[1]["watched"] <= 1


def test_only_programs_of_the_cgroup_are_watched(learned):
    entries, report = learned
    ports = {entry["port"] for entry in entries.values() if entry}
    assert {entry["port"] for entry in report["ports"]} == ports


def test_variables_of_the_report(learned):
    entries, report = learned
    wanted = {"accelerate": [], "leave": [], "no-gain": []}
    for name, (given, _reasons) in VERDICTS.items():
        if entries[name]:
            wanted[given].append(entries[name]["port"])
    variables = {"sockredir_ports": sorted(wanted["accelerate"]), "sockredir_exclude_ports": sorted(wanted["leave"])}
    assert {name: report["variables"][name] for name in variables} == variables


def gone(ids):
    """Wait until none of these programs and maps is left: the kernel frees them a moment after the last descriptor."""
    wait_for(lambda: not ids["program"] & set(libbpf.program_ids()) and not ids["map"] & set(libbpf.map_ids()))


@pytest.mark.parametrize("links", range(1, ATTACHED + 1))
def test_killed_it_leaves_nothing(host, learn_object, links):
    run = Learn("--cgroup", str(host.cgroup), "--source", learn_object, "--seconds", "300")
    try:
        run.wait_for_links(links)
        ids = run.ids()
    finally:
        run.kill()
    assert len(ids["program"]) >= ATTACHED
    assert ids["map"]
    gone(ids)
    assert list(host.bpffs.glob("learn*")) == []


def test_killed_while_it_measures_it_leaves_an_empty_cgroup_which_the_next_run_removes(host, redirection_beside):
    words = ("--cgroup", str(host.cgroup), "--source", redirection_beside, "--seconds", "0.1")
    run = Learn(*words)
    left = cgroup2_mount() / f"sockredir-calibration-{run.process.pid}"
    try:
        run.wait_until(lambda: left.exists() and run.ids()["program"])
        ids = run.ids()
    finally:
        run.kill()
    gone(ids)
    subprocess.run(tool("learn", *words), check=True, capture_output=True, timeout=120)
    assert not left.exists()


@pytest.mark.parametrize("part", range(6))
def test_killed_at_any_moment_it_leaves_no_program_and_no_map(host, learn_object, part):
    """From the first thing that it loads, through the programs that this kernel may refuse."""
    run = Learn("--cgroup", str(host.cgroup), "--source", learn_object, "--seconds", "300")
    try:
        run.wait_until(lambda: run.ids()["map"])
        time.sleep(0.02 * part)
        ids = run.ids()
    finally:
        run.kill()
    gone(ids)


def test_ended_it_leaves_nothing(host, learn_object):
    with learning("--cgroup", str(host.cgroup), "--source", learn_object, "--seconds", "300") as run:
        ids = run.ids()
        assert run.end().startswith("no TCP connection was seen in ")
    gone(ids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_what_it_has_seen(host, learn_object, number):
    with learning("--cgroup", str(host.cgroup), "--source", learn_object, "--seconds", "300", "--vars") as run:
        run.process.send_signal(number)
        out, err = run.process.communicate(timeout=60)
    assert (run.process.returncode, err) == (0, "")
    assert out == "---\nsockredir_ports: []\nsockredir_exclude_ports: []\nsockredir_mode: observe\n"


def test_it_ends_by_itself_and_a_second_one_waits_for_it(host, learn_object):
    common = ("--cgroup", str(host.cgroup), "--source", learn_object)
    with learning(*common, "--seconds", "300") as first:
        second = Learn(*common, "--seconds", "0.1")
        try:
            assert "waiting for it, at most 60 s" in second.process.stderr.readline()
            assert second.links() == 0
            first.end()
            assert second.process.wait(60) == 0
        finally:
            second.kill()


def test_a_second_one_that_may_not_wait_says_so(host, learn_object):
    common = ("--cgroup", str(host.cgroup), "--source", learn_object)
    with learning(*common, "--seconds", "300"):
        done = subprocess.run(
            tool("learn", *common, "--wait", "0.01"), capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 3
    assert "another learn has run on this host for the last 0.01 s; wait for it to end" in done.stderr


def test_sources_compile_and_errors_are_one_line(host, tmp_path):
    def run(*words):
        command = tool("--state-dir", str(host.state_dir), "learn", "--seconds", "0.1", *words)
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stderr

    inside = ("--cgroup", str(host.cgroup))
    assert run(*inside, "--source", str(SOURCE)) == (0, "")
    code, text = run(*inside)
    assert (code, text.count("\n")) == (3, 1)
    assert f"the learning programs are not in {host.state_dir}/src; run the role" in text
    assert run("--cgroup", "no-such.slice", "--source", str(SOURCE))[1].endswith(
        "does not exist; name one that does, or choose none\n"
    )
    (tmp_path / "bad.bpf.o").write_bytes(b"no object")
    code, text = run(*inside, "--source", str(tmp_path / "bad.bpf.o"))
    assert (code, text.count("\n")) == (3, 1)
    assert run("--json", "--vars")[0] == 2
