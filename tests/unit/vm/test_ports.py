# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine keeps its port while that is free, two checkouts differ, and an exhausted range is said so."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from vmtool import layout, ports
from vmtool.errors import VmError


def test_every_port_of_the_range_is_tried_once():
    assert sorted(ports.candidates("a machine", 22000, 22009)) == list(range(22000, 22010))


def test_the_same_machine_gets_the_same_port():
    first = next(ports.candidates("checkout/default/debian12", 22000, 22999))
    assert first == next(ports.candidates("checkout/default/debian12", 22000, 22999))


def test_two_checkouts_start_at_different_ports():
    firsts = {
        next(ports.candidates(str(layout.state_dir(Path(f"/src/{user}/sockredir"), "default", {})), 22000, 22999))
        for user in ("ann", "bob")
    }
    assert len(firsts) == 2


def test_taken_ports_are_passed_over():
    order = list(ports.candidates("x", 22000, 22004))
    free = ports.free_ports("x", 22000, 22004, free=lambda port: port not in order[:3])
    assert [next(free), next(free)] == order[3:]


def test_an_exhausted_range_names_the_cure():
    with pytest.raises(VmError, match=r"no free port in 22000-22003 .*SOCKREDIR_VM_PORTS"):
        next(ports.free_ports("x", 22000, 22003, free=lambda port: False))


def test_a_listened_port_is_not_free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert not ports.is_free(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "expected"), [("", (22000, 22999)), ("30000-30000", (30000, 30000)), (" 2000-3000 ", (2000, 3000))]
)
def test_ranges(text, expected):
    assert ports.port_range({"SOCKREDIR_VM_PORTS": text}) == expected


@pytest.mark.parametrize("text", ["22", "3000-2000", "80-90", "60000-70000", "a-b", "-1-5000"])
def test_what_is_no_range(text):
    with pytest.raises(VmError, match="SOCKREDIR_VM_PORTS"):
        ports.port_range({"SOCKREDIR_VM_PORTS": text})
