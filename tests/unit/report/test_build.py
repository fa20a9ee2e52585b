# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's result makes of it, and what a fleet's hosts add up to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.build import one_line
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.host import ITEM_LIMIT, OUTCOMES, entry
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.page import to_page
from support.fleet_samples import (
    drifted,
    enabled,
    failed,
    fleet,
    hostile_fleet,
    intercepts,
    not_enabled,
    port,
    report_of,
    unreachable,
    unsupported,
)

COMPILER = {"name": "compiler", "ok": False, "found": "none", "needed": "clang", "cure": "install it", "scope": "build"}
SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "report-schema.json"


@pytest.mark.parametrize(
    ("result", "status", "summary"),
    [
        (enabled(), "compliant", "as its manifest says"),
        (
            drifted(),
            "drifted",
            "differs: settings_changed /sys/fs/bpf/sockredir/settings, pin_missing /sys/fs/bpf/sockredir/verdict",
        ),
        (not_enabled(), "not_enabled", "could be enabled, nothing of this collection is installed"),
        (unsupported(), "unsupported", "missing: helper bpf_get_netns_cookie"),
        (unreachable(), "unreachable", "Failed to connect to the host via ssh: Connection timed out"),
        (failed(), "failed", "MODULE FAILURE: no python3"),
        (None, "failed", "no answer: the host was not asked, or its task did not end"),
        # Pins without a manifest: the state directory went, and the host is not simply "not enabled".
        (drifted(enabled=False), "drifted", drifted),
        # A prerequisite that went after the host was enabled does not hide that it still is as planned.
        (enabled(prerequisites=unsupported()["prerequisites"]), "compliant", "as its manifest says"),
        (
            dict(not_enabled(), prerequisites=[COMPILER]),
            "not_enabled",
            "could be enabled, nothing of this collection is installed",
        ),
        (
            enabled(enabled=None, unreadable=[{"what": "manifest", "why": "Permission denied"}]),
            "failed",
            "could not be read: manifest: Permission denied",
        ),
        (dict(unreachable(), enabled=True, drift=drifted()["drift"]), "unreachable", unreachable()["msg"]),
    ],
)
def test_status_and_summary(result, status, summary):
    found = entry("web1", result)
    assert found["name"] == "web1"
    assert found["status"] == status
    if isinstance(summary, str):
        assert found["summary"] == summary


def test_a_drift_keeps_before_and_after_as_text():
    settings, pin = entry("web1", drifted())["drift"]
    assert settings == {
        "kind": "settings_changed",
        "subject": "/sys/fs/bpf/sockredir/settings",
        "before": '{"mode": "observe"}',
        "after": '{"mode": "enforce"}',
    }
    assert (pin["before"], pin["after"]) == (None, '{"id": 12}')


def test_a_missing_prerequisite_keeps_its_cure():
    assert entry("web1", unsupported())["missing"] == [
        {
            "name": "helper bpf_get_netns_cookie",
            "found": "kernel 5.10.0-32-amd64",
            "needed": "5.15",
            "cure": "boot a newer kernel",
            "scope": "load",
        }
    ]


def test_flows_may_be_a_list_or_a_number():
    assert entry("web1", enabled(flows={"open": 7}))["flows_open"] == 7
    assert entry("web1", enabled(flows=[{}, {}]))["flows_open"] == 2
    assert entry("web1", not_enabled())["flows_open"] is None


def test_what_a_port_gains_and_those_to_leave():
    ours = port(6379, "accelerate", bytes=4096, gain=1.31)
    theirs = port(443, "leave", programs=["nginx"], why="its connections use kernel TLS")
    found = entry("web1", enabled(ports=[ours, theirs]))["ports"]
    assert found[0] == {
        "port": 6379,
        "verdict": "accelerate",
        "programs": ["redis-server"],
        "connections": 12,
        "bytes": 4096,
        "gain": 1.31,
        "why": "redirected",
    }
    assert [item["verdict"] for item in found] == ["accelerate", "leave"]
    report = report_of([("web1", enabled(ports=[ours, theirs])), ("web2", enabled(ports=[theirs])), ("new", None)])
    assert report["ports_to_leave"] == [{"value": "443 nginx", "hosts": 2}]
    assert validate(report) is None
    page = to_page(report)
    assert "443 nginx" in page and "its connections use kernel TLS" in page and "1.31x" in page


@pytest.mark.parametrize("ports", [None, "none", [{}], [{"port": -1, "programs": 3, "gain": "much"}]])
def test_ports_that_a_host_tells_wrongly(ports):
    assert validate(report_of([("web1", enabled(ports=ports))])) is None


def test_interception_and_proxies_that_are_down():
    up, down = intercepts("127.0.0.1:15001", passed=3), intercepts(proxy_cgroup=None, proxy_user="haproxy")
    rule, other = entry("web1", enabled(intercepts=up))["intercepts"]
    assert rule == {
        "rule": "web",
        "cgroup": "sockredir.slice/sockredir-apps.slice",
        "proxy": "sockredir.slice/sockredir-proxy.slice",
        "when_down": "refuse",
        "listening": ["127.0.0.1:15001"],
        "not_listening": ["[::1]:15001"],
        "events": {"rewritten": 12, "claimed": 11, "answered": 11, "looped": 0, "unclaimed": 1},
    }
    assert (other["rule"], other["events"]["passed"]) == (None, 3)
    assert entry("web1", enabled(intercepts=up))["warnings"] == ["interception rule web: NAT is set; remove it"]
    report = report_of(
        [("web1", enabled(intercepts=up)), ("web2", enabled(intercepts=down)), ("web3", enabled()), ("new", None)]
    )
    assert report["proxies_down"] == [{"value": "web", "hosts": 1}]
    by_name = {host["name"]: host["intercepts"] for host in report["hosts"]}
    assert [each["proxy"] for each in by_name["web2"]] == ["user haproxy"]
    assert by_name["web3"] == by_name["new"] == []
    assert validate(report) is None
    page = to_page(report)
    assert "rewritten 12, claimed 11, answered 11, unclaimed 1</td>" in page
    assert "[::1]:15001: refuse" in page and "no rule" in page


@pytest.mark.parametrize(
    "told",
    [
        "none",
        {"rules": "x", "other": 3},
        {"rules": [{}, 3, {"name": 1, "listening": ["x"], "events": {"rewritten": "many"}}], "other": {"passed": -1}},
    ],
)
def test_interception_that_a_host_tells_wrongly(told):
    report = report_of([("web1", enabled(intercepts=told))])
    assert validate(report) is None
    to_page(report)


def test_long_lists_are_cut_and_counted():
    found = entry("web1", enabled(drift=drifted()["drift"] * 30, advice=[{"risk": "careful", "cure": "none"}] * 45))
    assert len(found["drift"]) == ITEM_LIMIT
    assert found["drift_omitted"] == 60 - ITEM_LIMIT
    assert found["warnings_omitted"] == 45 - ITEM_LIMIT


def test_totals_distributions_and_counters():
    report = report_of(fleet(20))
    assert report["totals"] == {
        "hosts": 20,
        "failed": 1,
        "unreachable": 1,
        "drifted": 2,
        "unsupported": 1,
        "not_enabled": 1,
        "compliant": 14,
    }
    assert report["drift_kinds"] == [{"value": "pin_missing", "hosts": 2}, {"value": "settings_changed", "hosts": 2}]
    assert report["missing"] == [{"value": "helper bpf_get_netns_cookie", "hosts": 1}]
    kernels = {item["value"]: item["hosts"] for item in report["distributions"]["kernel"]}
    assert kernels == {
        "6.1.0-28-amd64": 5,
        "6.12.41+deb13-amd64": 4,
        "6.18.2": 5,
        "7.2.0-rc4": 3,
        "5.10.0-32-amd64": 1,
        None: 2,
    }
    assert report["counters"]["no_peer"]["messages"] == sum(set(range(20)) - {5, 7, 11, 13})
    counts = "1 failed, 1 unreachable, 2 drifted, 1 unsupported, 1 not enabled, 14 compliant"
    assert one_line(report) == f"20 hosts: {counts}"


def test_no_hosts():
    report = report_of([])
    assert report["totals"]["hosts"] == 0
    assert one_line(report) == "0 hosts: none"


def test_worst_first_then_by_natural_name():
    hosts = [("web10", enabled()), ("web9", enabled()), ("web11", drifted()), ("9", enabled()), ("web", enabled())]
    assert [host["name"] for host in report_of(hosts)["hosts"]] == ["web11", "9", "web", "web9", "web10"]


def rollout_of(hosts):
    names = [name for name, _result in hosts]
    outcomes = {name: {"outcome": outcome, "batch": 1, "why": "because"} for name, outcome in zip(names, OUTCOMES)}
    return {"state": "stopped", "why": "budget <spent>", "budget": 1, "spent": 2, "batches": 3, "outcomes": outcomes}


def test_a_rollout_counts_outcomes():
    hosts = fleet(20)
    report = report_of(hosts, rollout=rollout_of(hosts))
    assert report["rollout"] == {
        "state": "stopped",
        "why": "budget <spent>",
        "budget": 1,
        "spent": 2,
        "batches": 3,
        "totals": dict.fromkeys(OUTCOMES, 1),
    }
    by_name = {host["name"]: host["rollout"] for host in report["hosts"]}
    assert by_name["web2.example.com"] == {"outcome": "restored", "batch": 1, "why": "because"}
    assert by_name["web19.example.com"] is None
    assert validate(report) is None
    page = to_page(report)
    assert "stopped: budget &lt;spent&gt;" in page
    assert "Rollout: not started, batch 1: because" in page


def validate(report):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(report)), schema)


@pytest.mark.parametrize("hosts", [[], fleet(40), hostile_fleet()], ids=["none", "mixed", "hostile"])
def test_follows_its_schema(hosts):
    validate(report_of(hosts))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("status", "fine", "'fine' is not one of"),
        ("summary", "two\nlines", "does not match"),
        ("extra", 1, "'extra' was unexpected"),
        ("draining", -1, "less than the minimum"),
    ],
)
def test_the_schema_refuses(key, value, complaint):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    report = report_of(fleet(1))
    report["hosts"][0][key] = value
    with pytest.raises(jsonschema.ValidationError, match=complaint):
        validate(report)


def test_a_host_cannot_make_the_report_large():
    assert len(json.dumps(report_of(hostile_fleet()))) < 500_000
