# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The value of the settings map: what survives it, and what is refused."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.layout import SETTINGS_SIZE, LayoutError
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.settings_value import Mode, Settings

FULL = Settings(
    mode=Mode.OBSERVE,
    budget=1 << 30,
    cross_netns=True,
    include=((80, 80), (8000, 8999)),
    exclude=((8080, 8080),),
    cidrs=("10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "::/0", "192.0.2.7/32"),
    demote_below=1000,
    demote_after=5,
    leave_after=7,
    trace_until=9,
    generation=4,
)


@pytest.mark.parametrize("settings", [Settings(), FULL, Settings(mode=Mode.DRAIN)])
def test_settings_survive_the_map(settings):
    raw = settings_value.encode_settings(settings)
    assert len(raw) == SETTINGS_SIZE
    assert settings_value.decode_settings(raw) == settings


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mode": Mode.UNSET}, "mode"),
        ({"mode": 9}, "mode"),
        ({"budget": 0}, "budget"),
        ({"budget": 2**63}, "budget"),
        ({"budget": "1"}, "budget"),
        ({"budget": True}, "budget"),
        ({"include": ((9, 8),)}, "ends before it begins"),
        ({"include": ((0, 8),)}, "include port"),
        ({"exclude": ((1, 65536),)}, "exclude port"),
        ({"exclude": ((1, 2),) * 33}, "at most 32"),
        ({"cidrs": ("10.0.0.1/8",)}, "host bits"),
        ({"cidrs": ("10.0.0.0/33",)}, "10.0.0.0/33"),
        ({"cidrs": ("here",)}, "here"),
        ({"cidrs": ("10.0.0.0/8",) * 17}, "at most 16"),
        ({"cross_netns": True}, "cross_netns"),
        ({"demote_after": 0}, "demote_after"),
        ({"demote_below": -1}, "demote_below"),
        ({"leave_after": 65}, "leave_after"),
    ],
)
def test_impossible_settings_are_refused(change, said):
    with pytest.raises(LayoutError, match=said):
        settings_value.encode_settings(Settings()._replace(**change))


def patched(at: int, value: int, code: str = "=I") -> bytes:
    raw = bytearray(settings_value.encode_settings(FULL))
    struct.pack_into(code, raw, at, value)
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (bytes(SETTINGS_SIZE), "never written"),
        (settings_value.encode_settings(FULL)[:-1], "bytes"),
        (settings_value.encode_settings(FULL) + b"\0", "bytes"),
        (b"\xff" * SETTINGS_SIZE, "version"),
        (patched(0, 1), "version 1"),
        (patched(4, 8), "size 8"),
        (patched(8, 0), "mode"),
        (patched(12, 2), "flags"),
        (patched(16, 0, "=Q"), "budget"),
        (patched(44, 33), "include ranges"),
        (patched(48, 2**32 - 1), "exclude ranges"),
        (patched(52, 17), "CIDRs"),
        (patched(64, 0), "include port"),
        (patched(64 + 256 + 16, 129), "129"),
        (patched(64 + 256 + 16, 100), "host bits"),
    ],
)
def test_nonsense_in_the_map_is_named(raw, said):
    with pytest.raises(LayoutError, match=said):
        settings_value.decode_settings(raw)


@pytest.mark.parametrize("generation", [0, 1, 6, 2**32 - 1])
def test_a_change_is_bracketed_by_generations(generation):
    before = settings_value.encode_settings(FULL._replace(generation=generation))
    wanted = Settings(mode=Mode.DRAIN)
    begun, written, ended = settings_value.change_steps(before, wanted)
    assert settings_value.decode_settings(begun) == FULL._replace(generation=generation | 1)
    assert settings_value.decode_settings(written).generation == generation | 1
    assert settings_value.decode_settings(ended).generation % 2 == 0
    assert settings_value.decode_settings(ended).generation != generation
    assert settings_value.same_settings(settings_value.decode_settings(ended), wanted)


def test_change_of_never_written_settings():
    written = settings_value.change_steps(bytes(SETTINGS_SIZE), FULL)[-1]
    assert settings_value.decode_settings(written).generation == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (FULL, FULL._replace(generation=8, trace_until=1), True),
        (FULL, FULL._replace(budget=1 << 20), False),
        (FULL, FULL._replace(mode=Mode.ENFORCE), False),
    ],
)
def test_same_settings(one, other, same):
    assert settings_value.same_settings(one, other) is same
