# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of interception: what an operator may write, what it comes to, and what cannot work."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept, intercept_rules
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError

WEB = {"name": "web", "cgroup": "/apps", "proxy_cgroup": "/proxy", "to": ["15001"]}
WEB_NORMAL = {
    "name": "web",
    "slot": 1,
    "apps": [],
    "proxy": [],
    "cgroup": "/apps",
    "proxy_cgroup": "/proxy",
    "proxy_user": None,
    "to": ["127.0.0.1:15001", "[::1]:15001"],
    "ports": [],
    "exclude_ports": [],
    "cidrs": [],
    "exclude_cidrs": [],
    "when_down": "refuse",
    "answer": ["original_dst"],
    "udp_dns": [],
    "inbound": [],
}


def changed(**values):
    return {**WEB, **values}


def test_the_canonical_form():
    assert intercept_rules.normal([WEB]) == [WEB_NORMAL]
    assert intercept_rules.normal([WEB_NORMAL]) == [WEB_NORMAL]


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("to", [15001], ["127.0.0.1:15001", "[::1]:15001"]),
        ("to", ["[fd00::2]:1", "10.0.0.1:2"], ["10.0.0.1:2", "[fd00::2]:1"]),
        ("to", ["[0:0::1]:5"], ["[::1]:5"]),
        ("udp_dns", ["5353", "127.0.0.2:5353"], ["127.0.0.1:5353", "127.0.0.2:5353", "[::1]:5353"]),
        ("ports", ["443", 80, "81-90"], ["80-90", "443"]),
        ("cidrs", ["::ffff:10.0.0.0/104", "10.0.0.0/8"], ["10.0.0.0/8"]),
        ("answer", ["sockname"], ["original_dst", "sockname"]),
        ("proxy_user", "1000", "1000"),
        ("when_down", None, "refuse"),
        ("inbound", [81, "80", "443"], ["80-81", "443"]),
        ("inbound", None, []),
    ],
)
def test_values(key, text, found):
    assert intercept_rules.normal([changed(**{key: text})])[0][key] == found


def networks(count):
    return [f"10.{n}.0.0/16" for n in range(count)]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([changed(to=["0"])], "rule web: to: '0' is not a port from 1 to 65535"),
        ([changed(to=["127.0.0.1:65536"])], "rule web: to: '127.0.0.1:65536' is not a port"),
        ([changed(to=["here:1"])], "rule web: to: 'here:1' is not a port"),
        ([changed(to=["300.0.0.1:1"])], "rule web: to: '300.0.0.1' does not appear"),
        ([changed(to=["15001", "15002"])], "rule web: to: 2 addresses of IPv4, at most 1"),
        ([changed(to=[])], "rule web: to: it is empty"),
        ([changed(udp_dns=["1", "2", "3", "4"])], "udp_dns: 4 addresses of IPv4, at most 3"),
        ([changed(ports=["0"])], "rule web: ports: '0' is not a port or a range"),
        ([changed(cidrs=networks(33))], "rule web: cidrs: 33 networks, at most 32"),
        ([changed(exclude_ports=[str(2 * n + 1) for n in range(33)])], "rule web: exclude_ports: 33 ranges"),
        ([changed(name="a b")], "rule a b: name: up to 32 letters"),
        (
            [changed(proxy_cgroup=None)],
            "rule web: it does not say who the proxy is; set proxy_cgroup, proxy or proxy_user",
        ),
        ([changed(cgroup=None)], "rule web: it does not say whose connections; set cgroup, or apps"),
        ([changed(proxy_cgroup="/apps")], "cgroup /apps is in proxy_cgroup /apps: it would never be intercepted"),
        ([changed(proxy_cgroup="/")], "it would never be intercepted"),
        ([changed(inbound=["0"])], "rule web: inbound: '0' is not a port or a range"),
        ([changed(inbound=["80"], to=[], udp_dns=["53"])], "rule web: inbound: to is empty; give the port"),
        ([changed(inbound=["15000-15002"])], "rule web: inbound: 15001 is the port of the proxy itself"),
        (
            [changed(inbound=["80-90"]), changed(name="two", to=["15002"], inbound=["85"])],
            "rule two: inbound: rule web has port 85 too",
        ),
        ([changed(inbound=["1-1025"])], "inbound: 1025 ports, at most 1024 in all rules together"),
        ([WEB, WEB], "rule web: another rule has this name"),
        ([changed(name=f"n{n}") for n in range(33)], "rules: 33 of them, at most 32"),
    ],
)
def test_what_makes_no_sense_is_named(rules, said):
    with pytest.raises(SockredirError) as refused:
        intercept_rules.normal(rules)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(SockredirError, match=r"rule web: to: '0'.*; rule dns: ports: '0'"):
        intercept_rules.normal([changed(to=["0"]), changed(name="dns", ports=["0"])])


A_TO_B = {"name": "one", "cgroup": "/a", "proxy_cgroup": "/b", "to": ["1"]}
B_TO_A = {"name": "two", "cgroup": "/b", "proxy_cgroup": "/a", "to": ["2"]}


@pytest.mark.parametrize(
    ("changes", "loops"),
    [
        ({}, True),
        ({"ports": ["80"]}, True),
        ({"cgroup": "/b/inner"}, False),
        ({"cgroup": "/", "proxy_cgroup": "/a/inner"}, True),
        ({"proxy_cgroup": "/c"}, False),
    ],
)
def test_proxies_that_hand_on_to_each_other(changes, loops):
    rules = [A_TO_B, {**B_TO_A, **changes}]
    if loops:
        with pytest.raises(SockredirError, match="rule one: its proxy's connections come back to it"):
            intercept_rules.normal(rules)
    else:
        assert len(intercept_rules.normal(rules)) == 2


@pytest.mark.parametrize(
    ("one", "other"), [({"ports": ["80"]}, {"ports": ["443"]}), ({"cidrs": ["10.0.0.0/8"]}, {"cidrs": ["fd00::/8"]})]
)
def test_what_never_meets_is_no_loop(one, other):
    assert len(intercept_rules.normal([{**A_TO_B, **one}, {**B_TO_A, **other}])) == 2


def test_a_rule_keeps_its_slot_and_a_new_one_takes_a_free_one():
    before = intercept_rules.normal([changed(name=name) for name in ("a", "b", "c")])
    after = intercept_rules.normal([changed(name=name) for name in ("d", "c", "a", "e")], before)
    assert {rule["name"]: rule["slot"] for rule in after} == {"a": 1, "c": 3, "d": 2, "e": 4}


def test_what_is_written_into_the_map():
    values = {"proxy_user": "me", "when_down": "direct", "answer": ["sockname"], "ports": ["80-81"], "inbound": ["80"]}
    (rule,) = intercept_rules.normal([changed(**values)])
    places = {"/apps": (7, 1), "/proxy": (8, 1)}
    assert intercept_rules.to_layout(rule, places.__getitem__, {"me": 5}.__getitem__, lambda: 9) == intercept.Rule(
        apps=7,
        apps_level=1,
        to=(End("127.0.0.1", 15001), End("::1", 15001)),
        slot=1,
        proxy=8,
        proxy_level=1,
        proxy_user=5,
        ports=((80, 81),),
        direct_when_down=True,
        sockname=True,
        inbound=((80, 80),),
        netns=9,
    )


APPS = ("connect4", "connect6", "claims", "getpeername4", "getpeername6")
PROXY = ("connect4", "connect6", "claims", "getsockopt")


def attached(*pairs):
    found = {}
    for programs, cgroup in pairs:
        for program in programs:
            found.setdefault(program, []).append(cgroup)
    return found


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (attached((APPS, "/apps"), (PROXY, "/proxy")), None),
        (attached(({*APPS, *PROXY}, "/")), None),
        (attached((APPS, "/apps")), "not attached to cgroup /proxy: connect4, connect6, claims, getsockopt"),
        (
            attached((APPS[1:], "/apps"), (PROXY, "/proxy")),
            "not attached to cgroup /apps: connect4; use sockmap_attach",
        ),
        (
            attached((APPS, "/apps"), (PROXY, "/proxy"), (("connect4",), "/")),
            "connect4 is attached to / and again below it",
        ),
    ],
)
def test_what_must_be_attached(there, said):
    found = intercept_rules.missing(WEB_NORMAL, there)
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("places", "said"),
    [(["/proc/self/ns/net"], None), ([], "rule web: inbound is not attached to this network namespace")],
)
def test_connections_from_outside_need_a_program_on_the_namespace(places, said):
    there = {**attached((APPS, "/apps"), (PROXY, "/proxy")), "inbound": places}
    assert intercept_rules.missing(WEB_NORMAL, {**there, "inbound": []}) is None
    found = intercept_rules.missing({**WEB_NORMAL, "inbound": ["80"]}, there)
    assert found is None if said is None else said in found


def test_a_rule_of_an_earlier_version_has_no_ports_for_connections_from_outside():
    earlier = {key: value for key, value in WEB_NORMAL.items() if key != "inbound"}
    assert intercept_rules.missing(earlier, attached((APPS, "/apps"), (PROXY, "/proxy"))) is None
    found = intercept_rules.to_layout(earlier, lambda _path: (1, 1), lambda _user: 0, lambda: 9)
    assert (found.inbound, found.netns) == ((), 0)
