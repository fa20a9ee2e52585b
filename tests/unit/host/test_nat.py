# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which ports the output chains of a host translate, from what nft and iptables-save print."""

from __future__ import annotations

import json

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import nat_iptables, nat_nft
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.nat_chains import EVERY, complement, translations

REDIRECT = {"redirect": {"port": 15001}}
JUMP = {"jump": {"target": "more"}}


def dport(right, op="==", protocol="tcp"):
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": right}}


def l4proto(protocol):
    return {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": protocol}}


def ruleset(*rules, hook="output", kind="nat", more=(), extra=(), family="ip"):
    """What nft says of a table with a base chain and a further chain."""
    base = {"family": family, "table": "t", "name": "out", "handle": 1, "type": kind, "hook": hook, "prio": -100}
    made = [
        {"rule": {"family": family, "table": "t", "chain": chain, "handle": 9, "expr": list(expr)}}
        for chain, group in (("out", rules), ("more", more))
        for expr in group
    ]
    return json.dumps({"nftables": [{"metainfo": {}}, {"table": {}}, {"chain": base}, *extra, *made]})


def found(text):
    return [(each.protocol, each.ports) for each in translations(nat_nft.parse(text).rules)]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], []),
        ([[dport(80), REDIRECT]], [("tcp", ((80, 80),))]),
        ([[dport(80), {"dnat": {"addr": "10.0.0.1"}}]], [("tcp", ((80, 80),))]),
        ([[dport(80), {"accept": None}]], []),
        ([[dport(80), {"masquerade": None}]], []),
        ([[dport({"set": [80, {"range": [8000, 8099]}]}), REDIRECT]], [("tcp", ((80, 80), (8000, 8099)))]),
        ([[dport({"range": [1, 1024]}), REDIRECT]], [("tcp", ((1, 1024),))]),
        ([[dport(22, "!="), REDIRECT]], [("tcp", ((0, 21), (23, 65535)))]),
        ([[dport(53, protocol="udp"), REDIRECT]], [("udp", ((53, 53),))]),
        ([[l4proto("tcp"), REDIRECT]], [("tcp", EVERY)]),
        ([[l4proto("tcp"), dport(80, protocol="th"), REDIRECT]], [("tcp", ((80, 80),))]),
        ([[REDIRECT]], [("", EVERY)]),
        # It does not say which.
        ([[dport("@unknown"), REDIRECT]], [("tcp", EVERY)]),
        ([[dport("http"), REDIRECT]], [("tcp", EVERY)]),
        # Extensions of iptables, as nft 1.0 and as older ones show them.
        ([[{"xt": {"type": "target", "name": "REDIRECT"}}]], [("", EVERY)]),
        ([[{"xt": None}]], []),
    ],
)
def test_rules_of_nft(rules, expected):
    assert found(ruleset(*rules)) == expected


@pytest.mark.parametrize(("hook", "kind"), [("prerouting", "nat"), ("output", "filter"), ("postrouting", "nat")])
def test_other_chains_are_not_for_connections_of_this_host(hook, kind):
    assert found(ruleset([dport(80), REDIRECT], hook=hook, kind=kind)) == []


def test_jumps_narrow_what_reaches_a_rule():
    rules = [[dport({"range": [1, 100]}), JUMP]]
    assert found(ruleset(*rules, more=[[dport({"range": [80, 443]}), REDIRECT]])) == [("tcp", ((80, 100),))]
    assert found(ruleset(*rules, more=[[dport(443), REDIRECT]])) == []
    assert found(ruleset(*rules, more=[[dport(53, protocol="udp"), REDIRECT]])) == []
    assert found(ruleset([JUMP], more=[[REDIRECT, JUMP]])) == [("", EVERY)], "a circle ends"


def test_sets_and_verdict_maps_with_a_name():
    known = {"set": {"family": "ip", "table": "t", "name": "web", "elem": [80, {"elem": {"val": 443, "timeout": 9}}]}}
    assert found(ruleset([dport("@web"), REDIRECT], extra=[known])) == [("tcp", ((80, 80), (443, 443)))]
    verdicts = {"map": {"family": "ip", "table": "t", "name": "go", "elem": [[80, {"goto": {"target": "more"}}]]}}
    there = {"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": "@go"}}
    assert found(ruleset([there], more=[[dport(80), REDIRECT]], extra=[verdicts])) == [("tcp", ((80, 80),))]
    inline = {"vmap": {"key": {}, "data": {"set": [["lo", {"jump": {"target": "more"}}]]}}}
    assert found(ruleset([inline], more=[[dport(80), REDIRECT]])) == [("tcp", ((80, 80),))]


def test_a_table_that_iptables_made_is_for_iptables_to_say():
    text = ruleset([{"xt": {"type": "target", "name": "REDIRECT"}}])
    assert nat_nft.parse(text).opaque == set()
    assert nat_nft.parse(text.replace('"table": "t"', '"table": "nat"')).opaque == {"ip"}


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '{"nftables": [{"rule": {}}]}', '{"nftables": [3]}'])
def test_what_nft_does_not_say(text):
    with pytest.raises(SockredirError, match="cannot be understood"):
        nat_nft.parse(text)
    assert found("") == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", []),
        (":OUTPUT ACCEPT [0:0]", []),
        ("-A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 15001", [("tcp", ((80, 80),))]),
        (
            "-A OUTPUT -p tcp -m multiport --dports 80,8000:8099 -j DNAT --to 1.2.3.4",
            [("tcp", ((80, 80), (8000, 8099)))],
        ),
        ("-A OUTPUT -p tcp -m tcp ! --dport 22 -j REDIRECT", [("tcp", ((0, 21), (23, 65535)))]),
        ("-A OUTPUT -p tcp -m multiport ! --dports 22,443 -j REDIRECT", [("tcp", ((0, 21), (23, 442), (444, 65535)))]),
        ("-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT", [("udp", ((53, 53),))]),
        ("-A OUTPUT ! -p icmp -j REDIRECT", [("", EVERY)]),
        ("-A OUTPUT -j REDIRECT --to-ports 9", [("", EVERY)]),
        ('-A OUTPUT -p tcp -m comment --comment "the -j REDIRECT of old" -j ACCEPT', []),
        ("-A OUTPUT -p tcp -m comment --comment it's -j REDIRECT", [("tcp", EVERY)]),
        ("-A PREROUTING -p tcp -j REDIRECT", []),
        ("-A POSTROUTING -j MASQUERADE", []),
        (
            "-A OUTPUT -p tcp -j ISTIO\n-A ISTIO -m owner --uid-owner 1337 -j RETURN\n-A ISTIO -j REDIRECT",
            [("tcp", EVERY)],
        ),
        ("-A OUTPUT -p tcp -j OTHER\n-A UNUSED -j REDIRECT", []),
        (
            "-A OUTPUT -p tcp -m tcp --dport 80 -g FAR\n-A FAR -p udp -j REDIRECT\n-A FAR -j REDIRECT",
            [("tcp", ((80, 80),))],
        ),
    ],
)
def test_rules_of_iptables(lines, expected):
    text = f"# Generated by iptables-save\n*nat\n{lines}\nCOMMIT\n"
    assert [(each.protocol, each.ports) for each in translations(nat_iptables.parse(text, "iptables "))] == expected


def test_a_rule_is_named_as_it_was_written():
    line = "-A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 15001"
    (one,) = translations(nat_iptables.parse(line, "ip6tables "))
    assert one.text == f"ip6tables {line}"
    (other,) = translations(nat_nft.parse(ruleset([REDIRECT])).rules)
    assert other.text == "nft ip t out handle 9: redirect"


@pytest.mark.parametrize(
    ("ports", "rest"),
    [
        ((), EVERY),
        (EVERY, ()),
        (((0, 79), (81, 65535)), ((80, 80),)),
        (((80, 90), (85, 100)), ((0, 79), (101, 65535))),
    ],
)
def test_all_other_ports(ports, rest):
    assert complement(ports) == rest
