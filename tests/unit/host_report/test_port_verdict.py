# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the programs have counted to a verdict for each port."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.layout import Flow, Key, Port, Side
from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report import port_verdict
from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report.port_verdict import NOTHING, Host, Open
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn.speeds import ESTIMATE

HOST = Host(32, ESTIMATE)
IDLE = Open()


def judge(past=NOTHING, now=IDLE, host=HOST):
    return port_verdict.judge(80, past, now, [], host)


@pytest.mark.parametrize(
    ("past", "now", "verdict", "why"),
    [
        (Port(5, 0, 0, 500, 9000, 0, 40), Open(), "accelerate", "redirected"),
        (NOTHING, Open(1, 10, 900, {"redirected": 2}), "accelerate", "redirected"),
        (
            NOTHING,
            Open(1, 10, 900, {"redirected": 1, "ahead": 1}),
            "accelerate",
            "redirected; directions now: 1 by TCP (ahead)",
        ),
        (Port(40, 40, 0, 80, 900, 7, -32), Open(), "no-gain", "left alone: 40 of 40 connections end after"),
        (Port(4, 3, 0, 8, 900, 0, -3), Open(), "no-gain", "3 of 4 connections end after an exchange or two"),
        (Port(4, 0, 3, 900, 900, 0, -3), Open(), "no-gain", "3 of 4 connections send small messages one way"),
        (NOTHING, Open(2), "no-gain", "hardly used"),
        (Port(9, 0, 0, 900, 9000, 0, 64), Open(1, 5, 0, {"ulp": 1}), "leave", "by TCP: another protocol"),
    ],
)
def test_verdict(past, now, verdict, why):
    found = judge(past, now)
    assert found["verdict"] == verdict
    assert found["why"].startswith(why)
    assert found["reasons"] == (["ktls"] if verdict == "leave" else [])
    assert (found["gain"] is not None) == (verdict == "accelerate")


def test_a_port_is_not_called_left_alone_if_the_setting_is_off():
    found = judge(Port(40, 10, 0, 900, 900, 0, -32), host=Host(0, ESTIMATE))
    assert found["verdict"] == "accelerate"


def test_the_gain_depends_on_the_size_of_messages_and_on_how_many_connections_are_open():
    small, many = judge(now=Open(1, 10, 640)), judge(now=Open(8, 10, 640))
    large = judge(now=Open(1, 10, 10 * 131072))
    assert [found["gain"] for found in (small, many, large)] == [1.11, 1.25, 1.92]


def side(server, messages=2, state="redirected"):
    return Side(1, state, messages, 100 * messages, 0, 0, 0, server, False)


def test_open_connections_are_summed_by_the_port_of_the_end_that_accepted():
    def key(local, remote):
        return Key(1, "127.0.0.1", local, "127.0.0.1", remote)

    flows = [
        (key(80, 40000), Flow(0, (side(True), side(False)))),
        (key(50, 80), Flow(0, (side(False, 0, "undecided"), side(True)))),
        (key(90, 91), Flow(0, (side(False), side(False)))),
    ]
    assert port_verdict.open_by_port(flows) == {80: Open(2, 6, 600, {"redirected": 3})}


def test_connections_that_were_left_alone_and_open_ones_count():
    found = judge(Port(5, 0, 0, 500, 9000, 3, 40), Open(2, 4, 10))
    assert (found["connections"], found["open"], found["messages"], found["bytes"]) == (10, 2, 504, 9010)
