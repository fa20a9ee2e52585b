# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a fleet that has learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.fleet_advice import advise, one_line
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.advice import to_page
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.query import query

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "advice-schema.json"


def learned(*ports, variables=None):
    return {"report": {"schema_version": 1, "seconds": 60.0, "ports": list(ports), "variables": variables or {}}}


def entry(port, verdict, program="p", reasons=(), size=10, passing=False):
    return {
        "port": port, "verdict": verdict, "reasons": list(reasons), "programs": [program], "connections": 1,
        "bytes": size, "passing": passing, "why": f"why {program}", "gain": 1.2 if verdict == "accelerate" else None,
    }  # fmt: skip


def test_one_host_is_enough_to_leave_a_port_and_to_accelerate_it():
    results = {
        "a": learned(entry(80, "accelerate", "nginx"), entry(90, "no-gain"), entry(70, "no-gain")),
        "b": learned(entry(80, "leave", "haproxy", ["splice-read"]), entry(90, "accelerate")),
        "c": learned(entry(80, "accelerate", "nginx")),
    }
    found = {one["port"]: one for one in advise(results, {})["ports"]}
    assert {port: one["verdict"] for port, one in found.items()} == {80: "leave", 90: "accelerate", 70: "no-gain"}
    assert found[80]["hosts"] == {"leave": ["b"], "accelerate": ["a", "c"]}
    assert (found[80]["reasons"], found[80]["programs"]) == (["splice-read"], ["nginx", "haproxy"])
    assert (found[80]["connections"], found[80]["bytes"], found[80]["gains"]) == (3, 30, [1.2, 1.2])
    assert found[80]["why"] == {"leave": ["why haproxy"], "accelerate": ["why nginx"]}
    assert found[70]["gains"] == [None, None]


def test_most_bytes_first_and_no_passing_ports():
    results = {"a": learned(entry(1, "no-gain", size=5), entry(2, "no-gain", size=9), entry(3, "leave", passing=True))}
    assert [one["port"] for one in advise(results, {})["ports"]] == [2, 1]


def test_hosts_that_could_not_learn_are_named_with_the_reason():
    results = {
        "b": {"failed": True, "msg": "clang is not installed on this host"},
        "a": learned(),
        "c": {"unreachable": True, "msg": "no route"},
    }
    found = [(host["name"], host["status"], host["reason"]) for host in advise(results, {})["hosts"]]
    assert found == [
        ("a", "learned", ""),
        ("b", "failed", "clang is not installed on this host"),
        ("c", "unreachable", "no route"),
    ]


def test_variables_of_groups_whose_hosts_agree():
    one, other = {"sockredir_ports": [80]}, {"sockredir_ports": [81]}
    results = {
        "a": learned(variables=one),
        "b": learned(variables=one),
        "c": learned(variables=other),
        "d": {"failed": True},
    }
    groups = {"same": ["a", "b"], "mixed": ["b", "c"], "partly": ["a", "d"], "single": ["c"], "none": []}
    assert advise(results, groups)["groups"] == {"same": one, "single": other}


RESULTS = {
    "a": learned(entry(80, "accelerate", "nginx"), entry(90, "no-gain"), variables={"sockredir_ports": [80]}),
    "b": learned(entry(80, "leave", "<b>haproxy</b>", ["splice-read"])),
    "c": {"unreachable": True, "msg": "no route"},
}
REPORT = advise(RESULTS, {"web": ["a"]})


def test_totals_in_one_line():
    assert one_line(REPORT) == "2 hosts learned, 1 could not; of 2 ports 1 leave, 0 accelerate, 1 no-gain"


def test_the_page_escapes_what_hosts_say():
    page = to_page(REPORT)
    assert "&lt;b&gt;haproxy&lt;/b&gt;" in page
    assert "<b>haproxy" not in page
    assert "1.20x" in page


def test_questions():
    pytest.importorskip("jmespath")
    assert query(REPORT, "ports[?verdict=='leave'].hosts.leave[]") == ["b"]
    assert query(REPORT, "hosts[?status!='learned'].[name, reason]") == [["c", "no route"]]


def test_it_follows_its_schema():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(REPORT)), schema)
    jsonschema.validate(advise({}, {}), schema)
    wrong = json.loads(json.dumps(REPORT))
    wrong["ports"][0]["verdict"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError, match="'perhaps' is not one of"):
        jsonschema.validate(wrong, schema)
