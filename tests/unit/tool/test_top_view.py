# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of ``sockredirctl top``, its order and its keys."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.layout import Count, Port
from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report.port_verdict import Host, Open, ports
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn.speeds import ESTIMATE
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool import top_view
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool.top_view import Look, View

PLAIN = View()


def look(time, ended, counts, opened=None):
    counts = {name: Count(*each) for name, each in counts.items()}
    return Look(time, ports(ended, opened or {}, {80: ["nginx"]}, Host(32, ESTIMATE)), counts, "enforce", 2048)


BEFORE = look(
    10.0,
    {80: Port(1, 0, 0, 100, 1000, 0, 9)},
    {"redirected": (100, 1000), "ahead": (5, 50), "flow_opened": (5, 0), "flow_closed": (4, 0)},
)
NOW = look(
    12.0,
    {80: Port(5, 0, 0, 300, 5096, 0, 9), 81: Port(20, 20, 0, 40, 0, 0, -20)},
    {
        "redirected": (300, 5096),
        "ahead": (15, 99),
        "behind": (4, 9),
        "skip_vain": (6, 0),
        "flow_opened": (9, 0),
        "flow_closed": (6, 0),
    },
    {80: Open(2, 0, 0)},
)


def column(lines, number=0):
    return [line.split()[number] for line in lines[top_view.HEAD + 1 :]]


def test_rates_are_of_the_time_between_two_looks():
    shown = top_view.lines(BEFORE, NOW, PLAIN)
    assert shown[0] == "mode enforce, 3 connections, 2.0 KiB unread"
    assert shown[1] == "redirected: 100 messages/s, 2.0 KiB/s"
    assert shown[2] == "by TCP: 7 (ahead 5, behind 2) messages/s   not in the map: 3 (skip_vain 3) sockets/s"
    assert shown[3].split()[:3] == ["port", "verdict", "open"]
    assert shown[4].split() == ["80", "accelerate", "2", "3", "100", "2.0", "KiB", "nginx", "redirected"]
    assert shown[5].split()[:5] == ["81", "no-gain", "0", "10", "20"]


def test_the_first_look_has_no_rates():
    shown = top_view.lines(None, NOW, PLAIN)
    assert shown[1] == "measuring"
    assert shown[4].split() == ["80", "accelerate", "2", "nginx", "redirected"]


def test_maps_made_anew_are_no_negative_rates():
    shown = top_view.lines(NOW, BEFORE._replace(time=13.0), PLAIN)
    assert shown[1] == "redirected: 0 messages/s, 0 B/s"
    assert shown[4].split()[3:5] == ["0", "0"]


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ("b", ["80", "81"]),
        ("c", ["81", "80"]),
        ("m", ["80", "81"]),
        ("o", ["80", "81"]),
        ("p", ["80", "81"]),
        ("pr", ["81", "80"]),
    ],
)
def test_keys_sort(keys, order):
    view = PLAIN
    for key in keys:
        view = top_view.press(view, key)
    assert column(top_view.lines(BEFORE, NOW, view)) == order


def test_keys_quit_and_others_change_nothing():
    assert top_view.press(PLAIN, "q") is None
    assert top_view.press(PLAIN, "x") == PLAIN
    assert top_view.press(PLAIN, "KEY_RESIZE") == PLAIN


@pytest.mark.parametrize(("height", "ports_shown"), [(24, 2), (6, 1), (5, 0), (3, 0), (1, 0), (0, 0)])
def test_as_many_ports_as_there_is_room_for(height, ports_shown):
    shown = top_view.lines(BEFORE, NOW, PLAIN, height)
    assert len(shown) <= max(0, height - 1)
    assert len(shown[top_view.HEAD + 1 :]) == ports_shown


def test_scrolling_ends_where_the_ports_end():
    view = PLAIN
    for key in ("KEY_UP", "KEY_DOWN", "j", "j"):
        view = top_view.press(view, key)
    assert view.first == 3
    assert column(top_view.lines(BEFORE, NOW, view, 6)) == ["81"]
    assert top_view.press(view, "KEY_UP").first == 2
