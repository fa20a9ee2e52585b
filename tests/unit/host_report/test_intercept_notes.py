# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is noted beside interception rules."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.connections import Connection
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.nat_chains import EVERY, Found
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.processes import Process
from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report import intercept_notes

APP, PROXY, OTHER = 10, 20, 30
HOLDERS = {1: Process(APP, "curl"), 2: Process(PROXY, "haproxy"), 3: Process(OTHER, "sshd")}
FAR = "203.0.113.7"


def wanted(**values):
    known = {"name": "web", "to": ["127.0.0.1:15001"], "ports": ["80", "443"], "exclude_ports": [], "udp_dns": []}
    return {**known, "when_down": "refuse", **values}


def rule(apps=(APP,), proxies=(PROXY,), user=None, name="web", **values):
    to = (intercept.End("127.0.0.1", 15001),)
    layout = intercept.Rule(1, 1, to, 1, ports=((80, 80), (443, 443)), proxy_user=user)
    return intercept_notes.Rule(wanted(name=name, **values), layout, set(apps), set(proxies))


def connection(inode=1, remote=FAR, port=80, **values):
    return Connection(
        **{"local": ("192.0.2.1", 40000), "remote": (remote, port), "device": 0, "user": 0, "inode": inode, **values}
    )


@pytest.mark.parametrize(
    ("known", "count"),
    [
        ([], 0),
        ([connection()], 1),
        ([connection(), connection(port=443)], 2),
        # As the kernel has those that are intercepted.
        ([connection(remote="127.0.0.1", port=15001)], 0),
        # What the rule is not for.
        ([connection(port=22)], 0),
        ([connection(remote="127.0.0.77")], 0),
        ([connection(device=1)], 0),
        ([connection(inode=2)], 0),
        ([connection(inode=3)], 0),
        # No process holds it.
        ([connection(inode=0)], 0),
        # It was accepted.
        ([connection(local=("192.0.2.1", 8080))], 0),
    ],
)
def test_connections_that_are_not_intercepted(known, count):
    notes = intercept_notes.bypassing([rule()], known, HOLDERS, {8080})
    assert [note["rule"] for note in notes] == ["web"] * bool(count)
    if count:
        assert notes[0]["found"].startswith(f"{count} connection")
        assert f"curl{f' ({count})' if count > 1 else ''}, such as to {FAR}:80" in notes[0]["found"]


def test_who_the_proxy_is():
    known = [connection(user=99)]
    assert intercept_notes.bypassing([rule(user=98)], known, HOLDERS, set())
    assert not intercept_notes.bypassing([rule(user=99)], known, HOLDERS, set())
    assert not intercept_notes.bypassing([rule(proxies={APP})], known, HOLDERS, set())


def test_the_first_rule_that_is_for_it_has_the_note():
    rules = [rule(name="other", apps=[OTHER]), rule(name="first"), rule(name="second")]
    assert [note["rule"] for note in intercept_notes.bypassing(rules, [connection()], HOLDERS, set())] == ["first"]


def test_a_rule_that_connects_directly_has_one_more_reason():
    for way, more in (("refuse", False), ("direct", True)):
        (note,) = intercept_notes.bypassing([rule(when_down=way)], [connection()], HOLDERS, set())
        assert ("nobody listened" in note["cure"]) is more


@pytest.mark.parametrize(
    ("values", "protocol", "ports", "noted"),
    [
        ({}, "tcp", ((80, 80),), True),
        ({}, "", EVERY, True),
        ({}, "tcp", ((81, 442),), False),
        ({}, "udp", ((80, 80),), False),
        ({}, "tcp", ((15001, 15001),), True),
        ({"ports": []}, "tcp", ((22, 22),), True),
        ({"ports": [], "exclude_ports": ["22"]}, "tcp", ((22, 22),), False),
        ({"ports": ["1-100"], "exclude_ports": ["80"]}, "tcp", ((80, 80),), False),
        ({}, "udp", ((53, 53),), False),
        ({"udp_dns": ["127.0.0.1:5353"]}, "udp", ((53, 53),), True),
        ({"udp_dns": ["127.0.0.1:5353"], "to": []}, "tcp", EVERY, False),
    ],
)
def test_translation_of_the_same_ports(values, protocol, ports, noted):
    found = [Found(protocol, ports, "iptables -A OUTPUT")]
    notes = intercept_notes.translated([wanted(**values)], found)
    assert [(note["kind"], note["rule"]) for note in notes] == [("nat_rule", "web")] * noted


def test_many_rules_of_nat_are_one_note():
    (note,) = intercept_notes.translated([wanted()], [Found("tcp", EVERY, f"iptables -A {n}") for n in range(40)])
    assert note["found"].endswith("iptables -A 0 (and 39 more)")


def test_without_rules_nothing_is_looked_at():
    assert intercept_notes.observe([]) == []
