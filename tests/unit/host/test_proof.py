# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer proves, by mode; which ports it may use."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import proof


def pair(name="ipv4", by_tcp=0, intact=True):
    return {"pair": name, "port": 1, "bytes": 100, "by_tcp": by_tcp, "intact": intact}


SKIPPED = {"pair": "ipv6", "skipped": "this host has no ipv6"}
ALL_TCP = pair(by_tcp=100)


@pytest.mark.parametrize(
    ("mode", "pairs", "wrong"),
    [
        ("enforce", [pair(), pair("v4-mapped")], None),
        ("enforce", [pair(), SKIPPED], None),
        ("enforce", [pair(), pair("ipv6", by_tcp=1)], "bytes went by TCP (ipv6: 1 of 100 bytes)"),
        ("enforce", [ALL_TCP], "bytes went by TCP (ipv4: 100 of 100 bytes)"),
        ("enforce", [pair(intact=False)], "bytes did not arrive as they were sent (ipv4)"),
        ("enforce", [SKIPPED], "no connection could be made at all"),
        ("observe", [ALL_TCP], None),
        ("observe", [pair()], "bytes were redirected although the mode is observe (ipv4)"),
        ("drain", [ALL_TCP, pair("ipv6", by_tcp=99)], "bytes were redirected although the mode is drain (ipv6)"),
        ("drain", [pair(by_tcp=100, intact=False)], "bytes did not arrive as they were sent (ipv4)"),
        ("drain", [], "no connection could be made at all"),
    ],
)
def test_judgement(mode, pairs, wrong):
    assert proof.judge(mode, pairs) == wrong


@pytest.mark.parametrize(
    ("include", "exclude", "ports"),
    [
        ([(80, 82)], [], [80, 81, 82]),
        ([(80, 82)], [(81, 90)], [80]),
        ([(80, 80), (90, 91)], [(80, 80)], [90, 91]),
        ([(80, 82)], [(1, 65535)], []),
        ([(0, 1)], [], [1]),
    ],
)
def test_ports_inside_the_policy(include, exclude, ports):
    assert list(proof.candidates(include, exclude)) == ports


def test_without_ports_the_kernel_chooses():
    assert set(proof.candidates([], [(80, 80)])) == {0}


def test_a_wide_range_is_sampled():
    ports = list(itertools.islice(proof.candidates([(1024, 65535)], [(2000, 65535)]), 1000))
    assert 0 < len(ports) <= 64
    assert all(1024 <= port < 2000 for port in ports)
