# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn names each of these programs rightly: its port, its verdict, the reason and who is to blame."""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple

import pytest
from learn.zoo import (
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
def zoo(plain):
    """What learn says of them."""
    with serving(plain), learning("--cgroup", str(plain._cgroup), *OPTIONS) as run:
        results = work(plain)
        text = run.end()
    return Learned(by_port(text), json.loads(text), results)


@pytest.fixture(scope="module")
def followed(zoo, redirected):
    """What the same work comes to, redirected as the variables say, and how many messages were redirected."""
    variables = zoo.report["variables"]
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
def test_verdicts(zoo, port, verdict, reasons, server, client):
    entry = zoo.by_port[port]
    assert (entry["verdict"], entry["reasons"]) == (verdict, reasons), entry
    # The kernel keeps 15 characters of a name.
    assert entry["programs"][0] == server[:15]
    assert client[:15] in entry["programs"]
    assert entry["local_share"] == 1.0


@pytest.mark.parametrize(("port", "blamed"), [(SPLICED, "haproxy"), (nginx.READ, "haproxy"), (SINK, "sink")])
def test_who_is_to_blame(zoo, port, blamed):
    assert zoo.by_port[port]["why"] == f"splice-read: {blamed}"


def test_idle_connections_gain_nothing(zoo):
    entry = zoo.by_port[IDLE]
    assert (entry["verdict"], entry["connections"], entry["bytes"]) == ("no-gain", IDLE_CONNECTIONS, 0)
    assert entry["programs"] == [PYTHON]


@pytest.mark.parametrize("program", ["java", "rsync", "memcached"])
def test_none_of_these_is_to_be_left(zoo, program):
    entries = [entry for entry in zoo.by_port.values() if program in entry["programs"]]
    assert entries
    assert {entry["verdict"] for entry in entries} <= {"accelerate", "no-gain"}, entries


def test_nothing_else_is_left(zoo):
    assert {entry["port"] for entry in zoo.by_port.values() if entry["verdict"] == "leave"} == LEFT


def test_variables_are_those_of_the_verdicts(zoo):
    variables = zoo.report["variables"]
    assert variables["sockredir_exclude_ports"] == sorted(LEFT)
    assert {port for port, verdict, *_rest in EXPECTED if verdict == "accelerate"} <= set(variables["sockredir_ports"])
    assert IDLE not in variables["sockredir_ports"]


def test_following_them_results_are_those_of_tcp(zoo, followed):
    results, redirected = followed
    assert results == zoo.results
    assert redirected > 0
