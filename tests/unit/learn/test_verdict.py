# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From counts to verdicts: truth tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import gain, layout, speeds, verdict
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn.layout import Counts, Key

LIMITS = Path(__file__).resolve().parents[3] / "docs" / "limits.md"
SECOND = 10**9


def counts(connections=1, messages=0, size=100, answers=0, seconds=1.0, signs=(), files=0):
    """One end that has sent so many messages of this size; what it has received does not matter here."""
    marks = tuple(signs.count(name) for name in layout.SIGNS)
    return Counts(
        connections,
        int(seconds * SECOND * connections),
        messages * size,
        messages,
        0,
        0,
        answers,
        files,
        0,
        0,
        (0,) * layout.SIZES,
        marks,
    )


def asks(connections, per_connection, size=100, seconds=1.0, signs=()):
    """A client and a server that answers each question, then the client's next."""
    number = connections * per_connection
    return {
        end("server"): counts(connections, number, size, number, seconds, signs),
        end("client"): counts(connections, number, size, number - connections, seconds),
    }


def sends(messages, size):
    """A client that only sends."""
    return {end("server"): counts(), end("client"): counts(1, messages, size)}


def answers_with_files(size):
    """A server that answers each question with a file, by sendfile."""
    return {end("server"): counts(1, 100, size, 100, files=100)}


def end(which, program=None, port=80, local=True, cgroup=1):
    return Key(cgroup, program or which, port, which == "server", local)


def judged(parts, silent=None, active=0.0, measured=speeds.ESTIMATE, harmless=()):
    (found,) = verdict.ports(parts, silent or {}, verdict.Host(1.0, {80: active}, measured, harmless))
    return found


def timed(parts, reply_us):
    """With the time that a client waited for each answer."""
    client = parts[end("client")]
    return {**parts, end("client"): client._replace(reply_ns=reply_us * 1000, replies=1)}


#: 10 microseconds less for a question and its answer, 3 on many connections; half of the time for large messages.
HERE = speeds.Speeds(
    speeds.MEASURED,
    speeds.Cost(30.0, 20.0),
    speeds.Cost(12.0, 9.0),
    {65536: speeds.Cost(30.0, 15.0), 131072: speeds.Cost(60.0, 30.0)},
    65536,
)


@pytest.mark.parametrize(
    ("parts", "pattern", "given", "ratio"),
    [
        (asks(1, 1000), gain.EXCHANGE, "accelerate", 1.11),
        (asks(1000, 1, seconds=0.001), gain.SHORT, "no-gain", None),
        (asks(1000, 2, seconds=0.001), gain.SHORT, "no-gain", None),
        (asks(1000, 3, seconds=0.001), gain.EXCHANGE, "accelerate", 1.11),
        (sends(100000, 64), gain.STREAM_SMALL, "no-gain", None),
        (sends(100000, 16384), gain.STREAM_SMALL, "no-gain", None),
        (sends(10000, 32768), gain.STREAM, "accelerate", 1.1),
        (sends(10000, 49152), gain.STREAM, "accelerate", 1.3),
        (sends(10000, 1 << 20), gain.STREAM, "accelerate", 1.92),
        # Files by HTTP: few messages each, but large ones.
        (asks(1, 100, 1 << 20), gain.ANSWERS, "accelerate", 1.24),
        (answers_with_files(1 << 20), gain.ANSWERS, "accelerate", 1.24),
        (answers_with_files(4 << 20), gain.FILES, "no-gain", None),
        ({end("server"): counts(1, 100, 100, 100, files=100)}, gain.EXCHANGE, "accelerate", 1.11),
        (asks(1, 9), gain.IDLE, "no-gain", None),
        (asks(1, 10), gain.EXCHANGE, "accelerate", 1.11),
        (asks(200, 0), gain.IDLE, "no-gain", None),
    ],
)
def test_patterns(parts, pattern, given, ratio):
    found = judged(parts)
    assert (found["pattern"], found["verdict"], found["gain"]) == (pattern, given, ratio)
    assert found["reasons"] == []
    assert found["gain_source"] == ("table" if ratio else None)
    assert found["why"]


@pytest.mark.parametrize(("smallest", "pattern"), [(65536, gain.ANSWERS), (131072, gain.FILES), (None, gain.FILES)])
def test_files_are_left_to_tcp_where_streams_of_their_pieces_are(smallest, pattern):
    found = judged(answers_with_files(1 << 20), measured=HERE._replace(smallest=smallest))
    assert found["pattern"] == pattern


@pytest.mark.parametrize("name", layout.SIGNS)
@pytest.mark.parametrize("parts", [asks(1, 1), asks(100, 1000), sends(10000, 65536)])
def test_any_call_that_collides_makes_it_leave(name, parts):
    marked = {**parts, end("client", "culprit"): counts(signs=[name])}
    found = judged(marked)
    assert (found["verdict"], found["reasons"], found["gain"]) == ("leave", [verdict.SECTIONS[name]], None)
    assert found["why"] == f"{verdict.SECTIONS[name]}: culprit"


def test_several_reasons_each_with_the_programs_that_do_it():
    found = judged(
        {
            end("server", "ftpd"): counts(signs=["urgent"]),
            end("client", "b"): counts(signs=["waitall", "urgent"]),
            end("client", "a"): counts(signs=["interrupted", "two_slept"]),
        }
    )
    assert found["reasons"] == ["blocked-recv", "urgent-data", "waitall"]
    assert found["why"] == "blocked-recv: a; urgent-data: b, ftpd; waitall: b"
    assert found["programs"] == ["ftpd", "a", "b"]


def test_every_section_is_one_of_the_limits():
    known = set(re.findall(r"^## ([a-z-]+)$", LIMITS.read_text(), re.MULTILINE))
    assert set(verdict.SECTIONS) == set(layout.SIGNS)
    assert set(verdict.SECTIONS.values()) <= known


def test_calls_on_connections_with_other_hosts_do_not_matter():
    far = {end("server", local=False): counts(5, 1000, 100, 1000, signs=["spliced"])}
    found = judged(far)
    assert (found["verdict"], found["reasons"], found["local_share"], found["connections"]) == ("no-gain", [], 0.0, 5)
    assert found["why"] == "all connections are with other hosts"
    both = judged({**far, **asks(1, 1000)})
    assert (both["verdict"], both["reasons"], both["connections"]) == ("accelerate", [], 6)
    assert 0 < both["local_share"] < 1


def test_servers_elsewhere_are_no_ports_of_this_host():
    assert verdict.ports({end("client", local=False): counts(1, 100)}, {}, verdict.Host(1.0)) == []


@pytest.mark.parametrize(
    ("parts", "active", "pattern", "took", "ratio"),
    [
        # Each of 1000 requests takes 40 us; the pause between them is not part of that.
        (timed(asks(1, 1000), 40), 0.04, gain.EXCHANGE, 40, 1.33),
        (timed(asks(1, 1000), 40), 0.5, gain.EXCHANGE, 40, 1.33),
        # A database that computes for a millisecond.
        (timed(asks(1, 1000), 1000), 1.0, gain.EXCHANGE, 1000, None),
        # 20 questions wait at a time: one is answered every 12 us, or every 20 us.
        (timed(asks(20, 1000), 240), 0.24, gain.EXCHANGE_MANY, 12, 1.33),
        (timed(asks(20, 1000), 400), 0.4, gain.EXCHANGE_MANY, 20, 1.18),
        # As many connections, which ask one after the other.
        (timed(asks(20, 1000), 40), 0.8, gain.EXCHANGE, 40, 1.33),
        # No more than the stack's share of what it takes.
        (timed(asks(1, 1000), 12), 0.012, gain.EXCHANGE, 12, 1.67),
        (asks(1, 1000), 0.05, gain.EXCHANGE, 50, 1.25),
        (sends(10000, 65536), 0.3, gain.STREAM, 30, 2.0),
        (sends(10000, 65536), 0.6, gain.STREAM, 60, 1.33),
        (sends(10000, 98304), 0.45, gain.STREAM, 45, 2.0),
        (sends(10000, 32768), 0.3, gain.STREAM_SMALL, 30, None),
        # Half of what is not the answering program's own work.
        (asks(1, 100, 1 << 20), 0.1, gain.ANSWERS, 500, 1.25),
    ],
)
def test_the_gain_follows_from_what_it_takes_and_what_was_measured(parts, active, pattern, took, ratio):
    found = judged(parts, active=active, measured=HERE)
    assert (found["pattern"], round(found["took_us"]), found["gain"]) == (pattern, took, ratio)
    assert (found["verdict"], found["gain_source"]) == (("accelerate", "measured") if ratio else ("no-gain", None))


def test_why_there_is_no_gain_where_programs_work_for_longer():
    found = judged(timed(asks(1, 1000), 1000), active=1.0, measured=HERE)
    assert found["why"].startswith("requests and responses on few connections; but most of the time")


def test_a_host_on_which_redirection_is_slower_gains_nothing():
    slower = HERE._replace(single=speeds.Cost(20.0, 21.0), smallest=None)
    assert judged(timed(asks(1, 1000), 40), active=0.04, measured=slower)["verdict"] == "no-gain"
    assert judged(sends(10000, 65536), active=0.3, measured=slower)["pattern"] == gain.STREAM_SMALL


def test_calls_that_this_kernel_answers_as_tcp_does_are_harmless():
    asked = {**asks(1, 1000), end("client", "java"): counts(signs=["fionread"])}
    assert judged(asked)["reasons"] == ["fionread"]
    assert judged(asked, harmless=["fionread"])["verdict"] == "accelerate"


def test_connections_on_which_nothing_is_said():
    found = judged({}, {80: verdict.Silent(200, "idler")})
    assert (found["verdict"], found["connections"], found["programs"]) == ("no-gain", 200, ["idler"])
    more = judged(asks(2, 1000), {80: verdict.Silent(200, "idler")})
    assert (more["verdict"], more["connections"], more["programs"]) == ("accelerate", 202, ["server", "client"])


def test_bytes_are_counted_once_and_where_only_one_end_is_seen_by_what_it_received():
    assert judged(asks(1, 10, 1000))["bytes"] == 20000
    one_end = counts(1, 10, 1000, 10)._replace(received_bytes=500)
    assert judged({end("server"): one_end})["bytes"] == 10500


def test_ports_with_most_bytes_come_first():
    parts = {end("client", port=port): counts(1, port, 100) for port in (10, 30, 20)}
    assert [found["port"] for found in verdict.ports(parts, {5: verdict.Silent(1, "")}, verdict.Host(1.0))] == [
        30,
        20,
        10,
        5,
    ]


def test_details_name_each_program_with_its_calls_and_sizes():
    sized = counts(1, 3)._replace(sizes=(0, 0, 0, 0, 0, 0, 3, *[0] * 17))
    (detail,) = judged({end("client", "culprit", cgroup=9): sized._replace(signs=(2, *[0] * 7))})["details"]
    assert detail["program"] == "culprit"
    assert detail["end"] == "client"
    assert (detail["sizes"], detail["calls"], detail["cgroup_id"]) == ({"64": 3}, {"spliced": 2}, 9)
