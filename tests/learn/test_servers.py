# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn is right about each of these programs: its port, the verdict, the reason, and which program makes the call."""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple

import pytest
from learn.servers import (
    FTP,
    HAPROXY_HTTP,
    HAPROXY_TCP,
    IDLE,
    IDLE_CONNECTIONS,
    IPERF3,
    POSTGRESQL,
    PYTHON,
    REDIS,
    SINK,
    SPLICED,
    serving,
    work,
)
from programs.base import nginx
from support.learning import SOURCE, by_port, learning

OPTIONS = ("--source", str(SOURCE), "--seconds", "300", "--estimate", "--json")


class Learned(NamedTuple):
    """By port, the whole report, and what their work came to on plain TCP."""

    by_port: Dict[int, Any]
    report: Dict[str, Any]
    results: Dict[str, Any]


@pytest.fixture(scope="module")
def learned(plain):
    """What learn reports about the servers."""
    with serving(plain), learning("--cgroup", str(plain._cgroup), *OPTIONS) as run:
        results = work(plain)
        text = run.end()
    return Learned(by_port(text), json.loads(text), results)


@pytest.fixture(scope="module")
def followed(learned, redirected):
    """What the same work comes to, redirected as the variables say, and how many messages were redirected."""
    variables = learned.report["variables"]
    redirected.redirection.set(
        mode="enforce",
        include=tuple((port, port) for port in variables["sockredir_ports"]),
        exclude=tuple((port, port) for port in variables["sockredir_exclude_ports"]),
    )
    with serving(redirected):
        results = work(redirected)
        return results, redirected.redirection.events("redirected")


EXPECTED = [
    (nginx.SENDFILE, "accelerate", [], "nginx", "curl"),
    (nginx.BUFFERED, "accelerate", [], "nginx", "curl"),
    (HAPROXY_TCP, "accelerate", [], "haproxy", "curl"),
    (HAPROXY_HTTP, "accelerate", [], "haproxy", "curl"),
    (SPLICED, "leave", ["splice-read"], "haproxy", "curl"),
    # The proxy splices from its server, too.
    (nginx.READ, "leave", ["splice-read"], "nginx", "haproxy"),
    (SINK, "leave", ["splice-read"], "sink", PYTHON),
    (REDIS, "accelerate", [], "redis-server", "redis-benchmark"),
    (POSTGRESQL, "accelerate", [], "postgres", "pgbench"),
    (IPERF3, "accelerate", [], "iperf3", "iperf3"),
    (FTP, "leave", ["urgent-data"], "vsftpd", PYTHON),
]


LEFT = {port for port, verdict, *_rest in EXPECTED if verdict == "leave"}


@pytest.mark.parametrize(("port", "verdict", "reasons", "server", "client"), EXPECTED)
def test_verdicts(learned, port, verdict, reasons, server, client):
    entry = learned.by_port[port]
    assert (entry["verdict"], entry["reasons"]) == (verdict, reasons), entry
    # The kernel keeps 15 characters of a name.
    assert entry["programs"][0] == server[:15]
    assert client[:15] in entry["programs"]
    assert entry["local_share"] == 1.0


@pytest.mark.parametrize(("port", "caller"), [(SPLICED, "haproxy"), (nginx.READ, "haproxy"), (SINK, "sink")])
def test_the_program_that_makes_the_call_is_named(learned, port, caller):
    assert learned.by_port[port]["why"] == f"splice-read: {caller}"


def test_idle_connections_gain_nothing(learned):
    entry = learned.by_port[IDLE]
    assert (entry["verdict"], entry["connections"], entry["bytes"]) == ("no-gain", IDLE_CONNECTIONS, 0)
    assert entry["programs"] == [PYTHON]


@pytest.mark.parametrize("program", ["java", "rsync", "memcached"])
def test_none_of_these_has_the_verdict_leave(learned, program):
    entries = [entry for entry in learned.by_port.values() if program in entry["programs"]]
    assert entries
    assert {entry["verdict"] for entry in entries} <= {"accelerate", "no-gain"}, entries


def test_nothing_else_is_left(learned):
    assert {entry["port"] for entry in learned.by_port.values() if entry["verdict"] == "leave"} == LEFT


def test_variables_are_those_of_the_verdicts(learned):
    variables = learned.report["variables"]
    assert variables["sockredir_exclude_ports"] == sorted(LEFT)
    assert {port for port, verdict, *_rest in EXPECTED if verdict == "accelerate"} <= set(variables["sockredir_ports"])
    assert IDLE not in variables["sockredir_ports"]


def test_following_them_results_are_those_of_tcp(learned, followed):
    results, redirected = followed
    assert results == learned.results
    assert redirected > 0
