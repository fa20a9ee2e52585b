# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advice for fifty hosts at once, each with programs of its own, and one that is lost."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
import yaml

HOSTS = 50
TALKS, SPLICES, IDLES = 8301, 8302, 8303
LOST = "h050"

#: One connection at an address and a port of its host, used until standard input ends.
_PROGRAM = """
import os, select, socket, sys
address, port, splices, talks = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "splices", sys.argv[3] != "idles"
listener = socket.create_server((address, port))
client = socket.create_connection((address, port))
server = listener.accept()[0]
reader, writer = os.pipe()
print("talks", flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    if not talks:
        continue
    client.sendall(b"question")
    if splices:
        os.read(reader, os.splice(server.fileno(), writer, 100))
    else:
        server.recv(100)
    server.sendall(b"answer")
    client.recv(100)
"""


def ways(number):
    """What the programs of a host do: port and way of each."""
    kinds = [(TALKS, "talks"), (SPLICES, "splices"), (IDLES, "idles")]
    return kinds if number % 10 == 0 else [kinds[number % 3]]


@contextlib.contextmanager
def programs(fleet):
    """Those of all hosts, each in the cgroup of its host."""
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(fleet.names, 1):
            fleet.cgroup_of(name).mkdir()
            for port, way in ways(number):
                join = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
                command = ["sh", "-c", join, str(fleet.cgroup_of(name)), sys.executable, "-c", _PROGRAM]
                process = stack.enter_context(
                    subprocess.Popen(
                        [*command, f"127.77.0.{number}", str(port), way], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                    )
                )
                stack.callback(process.stdin.close)
                process.stdout.readline()
        yield


@pytest.fixture(scope="module")
def advised(fleet_of):
    """The run, the report, and where its files are."""
    fleet = fleet_of(HOSTS)
    fleet.lose(LOST)
    names = dict(enumerate(fleet.names, 1))
    groups = {"talkers": [names[number] for number in range(1, HOSTS) if ways(number) == [(TALKS, "talks")]]}
    groups["mixed"] = [names[1], names[2]]
    fleet.common = {"sockredir_learn_seconds": 5, "sockredir_learn_measure": False}
    extra = {name: {"sockredir_learn_cgroup": str(fleet.cgroup_of(name))} for name in fleet.names}
    fleet.write_inventory(extra, groups)
    with programs(fleet):
        query = json.dumps({"report_query": "ports[?verdict=='leave'].port"})
        done = fleet.play("advise_sockredir.yml", "--forks", "10", "-e", query, timeout=900)
    assert (fleet.base / "sockredir-advice.json").exists(), done.stdout + done.stderr
    return done, json.loads((fleet.base / "sockredir-advice.json").read_text(encoding="utf-8")), fleet


def test_all_hosts_but_the_lost_one_have_learned(advised):
    done, report, fleet = advised
    status = {host["name"]: host["status"] for host in report["hosts"]}
    assert status == {name: "unreachable" if name == LOST else "learned" for name in fleet.names}, done.stdout
    assert done.returncode != 0
    assert next(host["reason"] for host in report["hosts"] if host["name"] == LOST) in done.stdout


def test_each_port_over_all_hosts(advised):
    _done, report, fleet = advised
    names = {number: name for number, name in enumerate(fleet.names, 1) if name != LOST}
    with_way = {
        way: [name for number, name in names.items() if way in dict(map(reversed, ways(number)))]
        for way in ("talks", "splices", "idles")
    }
    found = {port["port"]: port for port in report["ports"]}
    assert found[TALKS]["hosts"] == {"accelerate": with_way["talks"]}
    assert found[SPLICES]["hosts"] == {"leave": with_way["splices"]}
    assert found[IDLES]["hosts"] == {"no-gain": with_way["idles"]}
    assert (found[SPLICES]["reasons"], report["totals"]) == (
        ["splice-read"],
        {"leave": 1, "accelerate": 1, "no-gain": 1},
    )


def test_groups_whose_hosts_agree_get_their_variables(advised):
    _done, report, fleet = advised
    assert set(report["groups"]) == {"talkers"}
    variables = yaml.safe_load((fleet.base / "sockredir-advice-talkers.yml").read_text(encoding="utf-8"))
    assert variables == {"sockredir_ports": [TALKS], "sockredir_exclude_ports": []}


def test_it_says_how_far_it_is_and_answers_the_question(advised):
    done, _report, _fleet = advised
    assert "(item=5 of 5 s)" in done.stdout
    assert f"msg:\n    - {SPLICES}\n" in done.stdout


def test_the_page_has_every_port(advised):
    _done, _report, fleet = advised
    page = (fleet.base / "sockredir-advice.html").read_text(encoding="utf-8")
    assert all(f"<span>{port}</span>" in page for port in (TALKS, SPLICES, IDLES))
    assert "49 hosts learned, 1 could not; of 3 ports 1 leave, 1 accelerate, 1 no-gain" in page
