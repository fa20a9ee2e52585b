# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every ready query of docs/queries.md, against a fleet where its answer is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("jmespath", reason="jmespath is not installed")

from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.query import query
from support.fleet_samples import (
    drifted,
    enabled,
    failed,
    intercepts,
    not_enabled,
    port,
    report_of,
    unreachable,
    unsupported,
)

PAGE = Path(__file__).resolve().parents[3] / "docs" / "queries.md"
#: What a person reads above a query, and the query.
READY = re.findall(r"([^\n]+):\n\n```jmespath\n([^`]*(?:`[^`]+`[^`]*)*)\n```\n", PAGE.read_text(encoding="utf-8"))

HOSTS = [
    ("app1", enabled(0, intercepts=intercepts("127.0.0.1:15001", passed=2))),
    ("app2", enabled(1, counters={}, intercepts=intercepts())),
    ("app3", enabled(2, mode="observe", version="0.9.0", ports=[port(443, "leave", why="kernel TLS")])),
    ("db1", drifted(0)),
    ("new1", not_enabled(1)),
    ("old1", unsupported()),
    ("gone1", unreachable()),
    ("bad1", failed()),
]
ROLLOUT = {
    "state": "stopped",
    "why": "the failure budget is spent",
    "budget": 1,
    "spent": 2,
    "batches": 2,
    "outcomes": {
        "app1": {"outcome": "enabled", "batch": 1, "why": None},
        "db1": {"outcome": "restored", "batch": 1, "why": "verify failed"},
        "bad1": {"outcome": "failed", "batch": 2, "why": "disk full"},
        "new1": {"outcome": "not_started", "batch": None, "why": None},
    },
}
REPORT = report_of(HOSTS, rollout=ROLLOUT)
MISSING = "helper bpf_get_netns_cookie"

ANSWERS = {
    "Names of the drifted hosts": ["db1"],
    "Every host that is not as it should be, with the reason": [
        {"host": "bad1", "status": "failed", "why": "MODULE FAILURE: no python3"},
        {"host": "gone1", "status": "unreachable", "why": unreachable()["msg"]},
        {
            "host": "db1",
            "status": "drifted",
            "why": "differs: settings_changed /sys/fs/bpf/sockredir/settings,"
            " pin_missing /sys/fs/bpf/sockredir/verdict",
        },
    ],
    "Every difference of every host, one line each": [
        {
            "host": "db1",
            "drift": [
                "settings_changed /sys/fs/bpf/sockredir/settings",
                "pin_missing /sys/fs/bpf/sockredir/verdict",
            ],
        }
    ],
    "Hosts with one kind of drift": ["db1"],
    "The settings of drifted hosts, and what they would become": [
        {"before": '{"mode": "observe"}', "after": '{"mode": "enforce"}'}
    ],
    "The kind of drift that most hosts have": {"value": "pin_missing", "hosts": 1},
    "Is everything in order (true or false)": False,
    "Hosts that are ready": ["new1"],
    "What stands in the way, and the cure, per host": [
        {"host": "old1", "missing": [{"what": MISSING, "cure": "boot a newer kernel"}]}
    ],
    "How many hosts lack what": [f"{MISSING}: 1"],
    "Kernels, the most frequent first": [
        ["6.1.0-28-amd64", 2],
        ["6.12.41+deb13-amd64", 2],
        ["5.10.0-32-amd64", 1],
        ["6.18.2", 1],
    ],
    "Hosts on a 6.1 kernel": ["db1", "app1"],
    "Enabled hosts with a version other than 1.0.0": [["app3", "0.9.0"]],
    "Hosts that only observe": ["app3"],
    "Bytes that did not go through the TCP stack, on the whole fleet": 65536 * (1 + 9 + 1),
    "The three hosts that redirect most": [["app3", 65536 * 9], ["app1", 65536], ["db1", 65536]],
    "Hosts that are enabled and redirect nothing": ["app2"],
    "Ports whose connections would break, or have to be left to TCP, with their hosts": [
        {"host": "app3", "ports": [[443, "kernel TLS"]]}
    ],
    "Interception rules whose proxy listens nowhere, with their hosts": [
        {"host": "app2", "rules": [["web", "refuse"]]}
    ],
    "Connections of each interception rule, those sent to its proxy, accepted there, and refused by its guard": [
        {"host": "app1", "rules": [["web", 12, 11, 0]]},
        {"host": "app2", "rules": [["web", 12, 11, 0]]},
    ],
    "Open connections in the maps, in all": 0 + 1 + 2 + 0,
    "Why messages went by TCP, on the whole fleet": {
        "no_peer": {"messages": 2, "bytes": 128},
        "redirected": {"messages": 3002, "bytes": 65536 * 11},
    },
    "Hosts that need attention, because a rollout could not restore them": [{"host": "bad1", "why": "disk full"}],
    "What the next run would begin with": ["db1", "new1"],
}


def test_the_page_and_the_answers_name_the_same_queries():
    assert [title for title, _expression in READY] == list(ANSWERS)


@pytest.mark.parametrize(("title", "expression"), READY)
def test_ready_query(title, expression):
    assert query(REPORT, expression) == ANSWERS[title]


@pytest.mark.parametrize(("title", "expression"), READY)
def test_ready_query_of_an_empty_fleet(title, expression):
    query(report_of([]), expression)
