# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What around interception rules is named as drift."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.listeners import Listener
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import drift_intercept
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation.drift_intercept import Rewriter

V4, V6 = "127.0.0.1:15001", "[::1]:15001"
PROXY, BELOW, ELSEWHERE = 7, 8, 9
PLACES = {"proxy": {PROXY, BELOW}}


def rule(**values):
    return {"name": "web", "cgroup": "apps", "proxy_cgroup": "proxy", "proxy_user": None, "to": [V4, V6], **values}


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ([], []),
        ([("127.0.0.1", 15001, PROXY)], []),
        ([("127.0.0.1", 15001, BELOW)], []),
        ([("127.0.0.1", 15001, ELSEWHERE)], [V4]),
        ([("::1", 15001, ELSEWHERE)], [V6]),
        ([("0.0.0.0", 15001, ELSEWHERE)], [V4]),
        # Dual-stack.
        ([("::", 15001, ELSEWHERE)], [V4, V6]),
        ([("::", 15001, PROXY)], []),
        # Who listens there is before who listens at any address.
        ([("0.0.0.0", 15001, ELSEWHERE), ("127.0.0.1", 15001, PROXY)], []),
        ([("0.0.0.0", 15001, PROXY), ("127.0.0.1", 15001, ELSEWHERE)], [V4]),
        # Two processes share the port (SO_REUSEPORT).
        ([("127.0.0.1", 15001, PROXY), ("127.0.0.1", 15001, ELSEWHERE)], [V4]),
        ([("127.0.0.1", 15002, ELSEWHERE)], []),
        ([("127.0.0.2", 15001, ELSEWHERE)], []),
        # The kernel does not say.
        ([("127.0.0.1", 15001, None)], []),
    ],
)
def test_a_proxy_outside_its_cgroup(heard, expected):
    found = drift_intercept.outside([rule()], [Listener(*each) for each in heard], PLACES)
    assert [(step.kind, step.subject) for step in found] == [("proxy_outside", f"rule web: {end}") for end in expected]


def test_a_proxy_that_is_told_by_its_user_may_be_in_any_cgroup():
    heard = [Listener("127.0.0.1", 15001, ELSEWHERE)]
    for place in (None, "proxy"):
        assert not drift_intercept.outside([rule(proxy_cgroup=place, proxy_user="haproxy")], heard, PLACES)


@pytest.mark.parametrize(
    ("digest", "expected"),
    [
        ("sha256:00", []),
        (None, [("connect_hook", "/cg/apps: cgroup_inet4_connect")]),
    ],
)
def test_other_programs_that_rewrite_connections(digest, expected):
    found = drift_intercept.others([Rewriter("/cg/apps", "cgroup_inet4_connect", 3, "lb", digest)])
    assert [(step.kind, step.subject) for step in found] == expected
