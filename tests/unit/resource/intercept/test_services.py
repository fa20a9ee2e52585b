# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd is told for the services of rules: a row for each thing that can be found on a host."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.systemd import Service
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept import services
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept.placing import Slice
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept.services import Seen, Wanted

APPS, PROXY = (f"s.slice/s-web_{kind}.slice" for kind in ("apps", "proxy"))
RULE = {"name": "web", "to": ["127.0.0.1:1"], "cgroup": APPS, "proxy_cgroup": PROXY}
WANTED = Wanted("/u", "s.slice", (Slice(PROXY, ("p.service",), True), Slice(APPS, ("a.service",), False)))
NOBODY = WANTED._replace(slices=())
MOVED = {
    "p.service": systemd.drop_in("s-web_proxy.slice"),
    "a.service": systemd.drop_in("s-web_apps.slice"),
}
NO_DROP_INS = dict.fromkeys(MOVED)


def running(name, where):
    return Service(name, True, f"/{where}/{name}" if where else "", where.rpartition("/")[2])


def seen(proxy, app, drop_ins=None):
    return Seen(True, (running("a.service", app), running("p.service", proxy)), drop_ins or MOVED)


def verbs(parts):
    return [(step.verb, step.subject) for part in parts for step in part.steps]


def files(name, slice_name):
    path = f"/u/{name}.d/51-sockredir-intercept.conf"
    return [("file", path), ("reload", "systemd"), ("start_slice", slice_name)]


LISTEN = ("listen", "rule web: its proxy")


@pytest.mark.parametrize(
    ("wanted", "there", "proxies", "apps"),
    [
        (
            WANTED,
            seen("system.slice", "system.slice", NO_DROP_INS),
            [*files("p.service", "s-web_proxy.slice"), ("restart", "p.service"), LISTEN],
            [*files("a.service", "s-web_apps.slice"), ("restart", "a.service")],
        ),
        (WANTED, seen(PROXY, APPS), [], []),
        # A reload came before, but no restart.
        (WANTED, seen("system.slice", APPS), [("restart", "p.service"), LISTEN], []),
        (WANTED, seen(PROXY, "system.slice"), [], [("restart", "a.service")]),
        # A proxy must run; others come when they start.
        (WANTED, seen("", ""), [("start", "p.service"), LISTEN], []),
        (NOBODY, seen(PROXY, APPS, NO_DROP_INS), [], []),
        (
            NOBODY,
            seen(PROXY, APPS),
            [],
            [("file", f"/u/{name}.d/51-sockredir-intercept.conf") for name in ("a.service", "p.service")]
            + [("reload", "systemd")],
        ),
        (
            NOBODY._replace(restart=True),
            seen("", APPS),
            [],
            [("file", f"/u/{name}.d/51-sockredir-intercept.conf") for name in ("a.service", "p.service")]
            + [("reload", "systemd"), ("restart", "a.service")],
        ),
        (NOBODY, Seen(), [], []),
    ],
)
def test_what_is_done(wanted, there, proxies, apps):
    assert verbs(services.proxies(wanted, there, [RULE])) == proxies
    assert verbs(services.apps(wanted, there)) == apps


def test_a_rule_for_datagrams_alone_waits_for_no_listener():
    there = seen("", APPS)
    assert verbs(services.proxies(WANTED, there, [{**RULE, "to": []}])) == [("start", "p.service")]


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (seen("", ""), []),
        (
            Seen(),
            [
                "apps: systemd does not run on this host; set cgroup instead",
                "proxy: systemd does not run on this host; set proxy_cgroup instead",
            ],
        ),
        (
            Seen(True, (Service("p.service", False, "", ""), running("a.service", ""))),
            ["proxy: systemd does not know p.service; install it, or correct the name"],
        ),
    ],
)
def test_what_is_missing_on_a_host(there, said):
    assert services.lacks({**RULE, "apps": ["a.service"], "proxy": ["p.service"]}, there) == said


def test_who_waits():
    assert services.waiting(WANTED, seen("system.slice", "system.slice")) == []
    assert services.waiting(NOBODY, seen(PROXY, "")) == ["p.service"]
    assert services.waiting(NOBODY._replace(restart=True), seen(PROXY, "")) == []


def test_what_the_manifest_says():
    assert sorted(services.recorded(WANTED)) == [
        f"/u/{name}.d/51-sockredir-intercept.conf" for name in ("a.service", "p.service")
    ]
