# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which slices the services of rules come to, and what cannot be had."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept import placing
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept.placing import Slice

WEB = {"name": "web", "apps": ["b", "a.service", "b.service"], "proxy": ["haproxy"]}
APPS, PROXY = "s.slice/s-web_apps.slice", "s.slice/s-web_proxy.slice"

CURE = "set cgroup to one, such as sockredir.slice"


def rule(name="web", **values):
    return {**WEB, "name": name, **values}


def cgroups(*rules, accelerated="/s.slice"):
    return [(each.get("cgroup"), each.get("proxy_cgroup")) for each in placing.placed(rules, accelerated)]


def test_a_rule_gets_full_names_and_the_cgroups_of_its_slices():
    (placed,) = placing.placed([WEB], "/s.slice")
    assert placed == {
        "name": "web",
        "apps": ["a.service", "b.service"],
        "proxy": ["haproxy.service"],
        "cgroup": APPS,
        "proxy_cgroup": PROXY,
    }
    assert placing.slices([placed]) == [
        Slice(PROXY, ("haproxy.service",), True),
        Slice(APPS, ("a.service", "b.service"), False),
    ]
    assert placing.slices([placed])[0].name == "s-web_proxy.slice"


@pytest.mark.parametrize(
    ("accelerated", "apps"),
    [
        ("/", "sockredir.slice/sockredir-web_apps.slice"),
        ("sockredir.slice", "sockredir.slice/sockredir-web_apps.slice"),
        ("/a.slice/a-b.slice", "a.slice/a-b.slice/a-b-web_apps.slice"),
    ],
)
def test_slices_are_below_the_accelerated_one(accelerated, apps):
    assert cgroups(WEB, accelerated=accelerated)[0][0] == apps


def test_a_dash_in_a_name_makes_no_slice_between():
    assert cgroups(rule("my-web"))[0][0] == "s.slice/s-my\\x2dweb_apps.slice"


def test_rules_with_cgroups_stay_as_they_are():
    given = {"name": "web", "cgroup": "x", "proxy_cgroup": "y"}
    assert placing.placed([given], "/s.slice") == [{**given, "apps": [], "proxy": []}]
    assert placing.slices(placing.placed([given], "/s.slice")) == []
    assert cgroups({"name": "web", "cgroup": "x", "proxy": ["haproxy"]}) == [("x", PROXY)]


@pytest.mark.parametrize("names", [("web", "zone"), ("zone", "web")])
def test_who_has_the_same_services_shares_their_slice_in_any_order(names):
    assert cgroups(*(rule(name) for name in names)) == [(APPS, PROXY)] * 2


def test_a_proxy_whose_own_connections_are_intercepted_comes_with_the_proxies():
    chained = placing.placed([WEB, {"name": "next", "apps": ["haproxy"], "proxy": ["envoy"]}], "/s.slice")
    assert chained[1]["cgroup"] == chained[0]["proxy_cgroup"]
    *proxies, apps = placing.slices(chained)
    assert sorted(each.services for each in proxies) == [("envoy.service",), ("haproxy.service",)]
    assert apps.services == ("a.service", "b.service")
    assert [each.proxy for each in (*proxies, apps)] == [True, True, False]


@pytest.mark.parametrize(
    ("given", "others", "accelerated", "said"),
    [
        (WEB, (), "/s.slice", []),
        (rule(cgroup="x"), (), "/s.slice", ["apps: it has cgroup too; give one of them"]),
        (rule(proxy=["a b"]), (), "/s.slice", ["proxy: 'a b' is not the name of a service"]),
        (
            rule(proxy=["c"]),
            (),
            "/s",
            [f"{key}: /s is not a slice, so no services can be put below it; {CURE}" for key in ("apps", "proxy")],
        ),
        (
            rule(apps=["a", "b"]),
            [rule("tls", apps=["b", "c"])],
            "/s.slice",
            ["apps: rule tls has b.service among other services (apps); name the same ones in both"],
        ),
        (
            rule(apps=["a"], proxy=["a", "b"]),
            (),
            "/s.slice",
            [
                "apps: rule web has a.service among other services (proxy); name the same ones in both",
                "proxy: rule web has a.service among other services (apps); name the same ones in both",
            ],
        ),
    ],
)
def test_what_is_wrong(given, others, accelerated, said):
    rules = placing.placed([given, *others], accelerated)
    assert placing.wrong(rules[0], rules, accelerated) == said
