# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredir_intercepts``: the role sets interception up and takes it away; what is wrong changes nothing."""

from __future__ import annotations

import json
import socket

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from support.host import cgroup2_mount, inside
from support.interception import FAR4, Namer, told

RULES = "Write the rules of interception"
ATTACH = "Attach the programs of interception"
COMMIT = "Write the settings, the tool and the systemd unit"
DETACH = "Detach the programs that no rule needs now"
CONNECT4 = 10


CGROUPS = ("apps", "other", "proxy")


@pytest.fixture(autouse=True, scope="module")
def cgroups(site):
    """Those of services: the role makes none by itself."""
    for name in CGROUPS:
        (site.sandbox.cgroup / name).mkdir()


def place(site, name):
    return f"{site.sandbox.cgroup.name}/{name}"


def rule(site, **values):
    apps, proxy = (place(site, name) for name in ("apps", "proxy"))
    return {"name": "web", "cgroup": apps, "proxy_cgroup": proxy, "to": [15001], **values}


def enable(site, *rules, options=(), prefix=(), **variables):
    return site.enable(*options, variables={"sockredir_intercepts": list(rules), **variables}, prefix=prefix)


def destination(site, proxy) -> str:
    """What the proxy is told of a connection of the programs."""
    with inside(cgroup2_mount() / rule(site)["cgroup"]):
        client = socket.create_connection((FAR4, 80), timeout=20)
    with client:
        assert client.getpeername() == (FAR4, 80)
        return told(client)[0]


@pytest.mark.parametrize("options", [[], ["--check"]], ids=["for real", "in check mode"])
def test_all_that_is_wrong_with_rules_is_said_at_once_and_changes_nothing(site, options):
    wrong = [
        rule(site, name="zero", to=[0]),
        rule(site, name="port", ports=["0"]),
        rule(site, name="many", cidrs=[f"10.{number}.0.0/16" for number in range(33)]),
        rule(site, name="own", proxy_cgroup=place(site, "proxy"), cgroup=f"{place(site, 'proxy')}/x"),
        rule(site, name="typo", cgroup=place(site, "aps"), proxy_user="nobody-of-this-name"),
        {"name": "services", "apps": ["a"], "proxy": ["b"], "to": [1]},
        rule(site, name="twice"),
        rule(site, name="twice"),
    ]
    played = enable(site, *wrong, options=options)
    said = played.tasks[-1]["result"]["msg"]
    assert played.code != 0
    assert not played.changed
    assert "\n" not in said.strip()
    for words in (
        "zero: to: '0' is not",
        "port: ports:",
        "many: ",
        "own: cgroup",
        f"typo: cgroup {place(site, 'aps')} does not exist; create it, start its slice, or correct the name",
        "typo: proxy_user: nobody-of-this-name is unknown",
        "services: apps: systemd does not run on this host; set cgroup instead",
        "services: proxy: systemd does not run on this host; set proxy_cgroup instead",
        "twice: another rule has this name",
    ):
        assert f"rule {words}" in said
    assert site.traces() == []


def test_an_unknown_key_of_a_rule_is_refused(site):
    played = enable(site, rule(site, porst=[80]))
    assert played.code != 0
    assert "porst" in played.tasks[-1]["result"]["msg"]
    assert site.traces() == []


def test_a_variable_that_the_role_does_not_have_is_refused(site):
    played = site.enable(variables={"sockredir_port": [80], "sockredir_intercept_rules": []})
    said = played.tasks[-1]["result"]["msg"]
    assert played.code != 0
    assert "unknown variable sockredir_intercept_rules, sockredir_port:" in said
    assert site.traces() == []


def test_a_host_that_intercepts(site):
    assert RULES in enable(site, rule(site), options=["--check"]).ok().changed
    assert site.traces() == []
    assert RULES in enable(site, rule(site)).ok().changed
    assert enable(site, rule(site)).ok().changed == []
    assert site.ask("status")["drift"] == []


def test_other_rules_hold_at_once_and_are_part_of_an_open_change(site):
    with inside(cgroup2_mount() / rule(site)["proxy_cgroup"]):
        proxy = Namer()
    with proxy:
        assert enable(site, rule(site, to=[proxy.port]), sockredir_commit=False).ok().changed == [RULES]
        assert destination(site, proxy) == f"{FAR4} 80"
        assert site.ask("intercepts")["rules"][0]["events"]["claimed"] == 1
    assert [each["kind"] for each in site.ask("status")["drift"]] == ["unfinished"]


def hooked(site, name) -> bool:
    """Whether connections of a cgroup are looked at."""
    with attachments.opened("cgroup", str(site.sandbox.cgroup / name)) as target:
        return bool(libbpf.query(target, CONNECT4).program_ids)


def looked_up(netns) -> int:
    """How many programs say who gets connections from outside."""
    with attachments.opened("netns", f"/run/netns/{netns.name}") as target:
        return len(libbpf.query(target, hooks.SK_LOOKUP.attach_type).program_ids)


def test_a_rule_for_another_cgroup_takes_its_programs_along(site, netns):
    """In a network namespace, from which it takes connections from outside."""
    moved = rule(site, cgroup=place(site, "other"), inbound=[80, "8000-8099"])
    assert enable(site, moved, prefix=netns.prefix).ok().changed == [COMMIT, ATTACH, RULES, DETACH]
    assert [hooked(site, name) for name in CGROUPS] == [False, True, True]
    assert looked_up(netns) == 1
    assert json.loads(netns.run(*site.ctl("status", "--json")))["drift"] == []


def test_no_rules_intercept_nothing(site, netns):
    assert enable(site, prefix=netns.prefix).ok().changed == [RULES, DETACH]
    assert [hooked(site, name) for name in ("other", "proxy")] == [False, False]
    assert looked_up(netns) == 0
    assert enable(site).ok().changed == []
    assert site.ask("intercepts")["rules"] == []


def test_disabling_leaves_nothing(site):
    site.disable().ok()
    assert site.traces() == []
