# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockredirctl ports, with real connections: what is open, what has ended, who listens, what is left alone."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest

#: Listens, talks over so many connections of so many exchanges each, says its port, and keeps the last one open.
_TALK = """
import socket, sys
connections, exchanges = int(sys.argv[1]), int(sys.argv[2])
listener = socket.create_server(("127.0.0.1", 0))
for _each in range(connections):
    client = socket.create_connection(listener.getsockname())
    server = listener.accept()[0]
    for _turn in range(exchanges):
        client.sendall(b"q" * 100)
        server.recv(100, socket.MSG_WAITALL)
        server.sendall(b"a" * 100)
        client.recv(100, socket.MSG_WAITALL)
    if _each < connections - 1:
        client.close()
        server.close()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def talk(enabled):
    """Starts a talk in the accelerated cgroup; returns its port while its last connection is open."""
    running = []

    def start(connections, exchanges):
        command = [str(enabled.prefix / "sbin" / "sockredirctl"), "exec", "python3", "-c", _TALK]
        process = subprocess.Popen(
            [*command, str(connections), str(exchanges)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return int(process.stdout.readline())

    yield start
    for process in running:
        process.communicate(timeout=30)


def ports(enabled):
    done = enabled.ctl("ports", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {entry["port"]: entry for entry in json.loads(done.stdout)["ports"]}


def test_a_port_with_long_connections_gains_and_names_who_listens(enabled, talk):
    port = talk(3, 50)
    found = ports(enabled)[port]
    assert (found["verdict"], found["reasons"], found["programs"]) == ("accelerate", [], ["python3"])
    assert (found["connections"], found["open"], found["messages"], found["bytes"]) == (3, 1, 300, 30000)
    assert (found["open_messages"], found["open_bytes"]) == (100, 10000)
    assert found["states"] == {"redirected": 2}
    assert found["gain"] > 1
    line = next(line for line in enabled.ctl("ports").stdout.splitlines() if line.split()[0] == str(port))
    assert re.search(r"accelerate +\d\.\d\dx +3 +1 +300 +29\.3 KiB +python3 +redirected$", line)


def test_a_port_with_one_exchange_a_connection_gains_nothing_and_is_left_alone(enabled, talk):
    port = talk(41, 1)
    found = ports(enabled)[port]
    assert found["verdict"] == "no-gain"
    assert found["why"] == "left alone: 32 of 32 connections end after an exchange or two"
    assert (found["connections"], found["open"], found["brief"], found["left_alone"]) == (41, 0, 32, 9)


def test_a_verification_is_not_taken_for_a_program(enabled, talk):
    port = talk(3, 50)
    before = ports(enabled).keys()
    report = json.loads(enabled.ctl("verify", "--json").stdout)
    tried = {pair["port"] for pair in report["pairs"] if "port" in pair}
    assert tried
    assert report["counters"]["flow_closed"]["messages"] == len(tried)
    assert ports(enabled).keys() == before >= {port}


def test_metrics_by_port(enabled, talk):
    port = talk(3, 50)
    lines = enabled.ctl("counters", "--prometheus").stdout.splitlines()
    assert f'sockredir_port_bytes_total{{port="{port}"}} 20000' in lines
    assert f'sockredir_port_connections_total{{port="{port}"}} 2' in lines
    assert f'sockredir_port_open_bytes{{port="{port}"}} 10000' in lines
    assert f'sockredir_port_open{{port="{port}"}} 1' in lines


def test_watch_shows_it_again_until_interrupted(enabled):
    # Who runs the tests in the background has SIGINT ignored, and so would the tool.
    command = [
        "env",
        "--default-signal=INT",
        str(enabled.prefix / "sbin" / "sockredirctl"),
        "ports",
        "--watch",
        "--interval",
        "0.05",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    heads = 0
    while heads < 3:
        heads += next(process.stdout).startswith(" port ")
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
