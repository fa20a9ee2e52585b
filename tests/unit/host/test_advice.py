# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Advice appears exactly where its kernel, and the use that it is about, are found."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import advice, facts, processes

QUIET = {
    "release": "6.18.4",
    "mptcp_sockets": 0,
    "ktls_sockets": 0,
    "iscsi_portals": [],
    "splicers": {},
    "one_queue": {"ok": True, "unread": 0, "woken": True, "why": ""},
    "fionread": {"ok": True, "tcp": 100, "redirected": 100, "both": 200, "why": ""},
}
# As found on 6.12.57.
FAULTY = {
    "one_queue": {"ok": False, "unread": -1000, "woken": None, "why": ""},
    "fionread": {"ok": False, "tcp": 100, "redirected": 0, "both": 100, "why": ""},
}
UNTRIED = {name: {"ok": None, "why": "no libbpf"} for name in FAULTY}


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"release": "6.17.9", "mptcp_sockets": 2}, ["mptcp"]),
        ({"release": "6.17.9"}, []),
        ({"mptcp_sockets": 2}, []),
        ({"ktls_sockets": 1}, ["ktls"]),
        ({"ktls_sockets": 1, "release": "7.2.0"}, []),
        ({"release": "6.12.5"}, ["replace_race"]),
        ({"release": "6.13.0"}, []),
        # By trial, whatever the version.
        ({"release": "7.0.1"}, []),
        (FAULTY, ["one_queue", "fionread"]),
        ({"fionread": FAULTY["fionread"]}, ["fionread"]),
        (UNTRIED, []),
        ({"splicers": {"haproxy": 2}}, ["splice"]),
        ({"release": "6.1.0", "mptcp_sockets": 1, "ktls_sockets": 1}, ["mptcp", "ktls", "replace_race"]),
    ],
)
def test_what_applies(changes, names):
    given = advice.judge({**QUIET, **changes})
    assert [each["name"] for each in given] == names
    assert all(each["found"] and each["risk"] and each["cure"] for each in given)


def test_what_fionread_breaks_is_named_with_what_was_found():
    (queue, unread) = advice.judge({**QUIET, **FAULTY})
    assert "-1000" in queue["found"]
    assert "0 of 100 redirected" in unread["risk"]
    assert "nginx, Java, .NET" in unread["risk"]
    assert "exclude the server ports" in unread["cure"]
    assert not any("\n" in text for each in (queue, unread) for text in each.values())


def test_splicing_matters_for_the_whole_host_only():
    assert [each["scope"] for each in advice.judge({**QUIET, "splicers": {"haproxy": 1}})] == ["whole_host"]


def test_an_iscsi_target_of_the_kernel():
    (found,) = advice.judge({**QUIET, "iscsi_portals": ["10.0.0.1:3260", "[::1]:3261"]})
    assert (found["name"], found["scope"]) == ("iscsi_target", "whole_host")
    assert found["cure"] == "exclude port 3260, 3261 (sockredir_exclude_ports)"


def test_many_names_are_cut():
    assert processes.list_names({"b": 2, "a": 1}) == "a, b (2)"
    assert processes.list_names({f"p{n:02}": 1 for n in range(12)}, most=2) == "p00, p01 and 10 more"


def test_this_machine_can_be_advised():
    here = advice.observe(facts.observe("/sys/fs/bpf/sockredir"))
    assert set(here) == set(QUIET)
    assert isinstance(advice.judge(here), list)
