# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a trace's lines, which come from two rings that are read one after the other."""

from __future__ import annotations

from ansible_collections.ebpf.sockredir.plugins.module_utils.tool.trace_lines import Line, Order


def lines(*times: int) -> list:
    return [Line(time, str(time)) for time in times]


def test_what_may_still_be_preceded_waits_for_the_next_look():
    order = Order()
    assert order.shown(100, lines(90, 105)) == []
    # The first ring was read before 103, the other after 105.
    assert order.shown(200, lines(103, 190, 95)) == ["90", "95"]
    assert order.shown(300, lines(201)) == ["103", "105", "190"]
    assert order.shown(400, []) == ["201"]
    assert order.shown(500, []) == []


def test_at_the_end_nothing_is_kept():
    order = Order()
    assert order.shown(100, lines(105, 101)) == []
    assert order.shown(200, lines(210, 103), last=True) == ["101", "103", "105", "210"]


def test_lines_of_one_moment_stay_as_they_came():
    order = Order()
    order.shown(100, [])
    assert order.shown(200, [Line(50, "connected"), Line(50, "accepted")]) == ["connected", "accepted"]
