# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of places for programs: what a section or a parameter says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import bcc
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import hooks

BPF = Path(__file__).resolve().parents[3] / "bpf"


def sections() -> list:
    return [
        name
        for file in sorted(BPF.rglob("*.[ch]"))
        if not file.name.startswith("learn")  # attached for as long as the tool runs, to nothing that is pinned
        for name in re.findall(r'^SEC\("(\w+/?\w*)"\)', file.read_text(), re.M)
    ]


def test_every_program_that_is_shipped_has_one_place():
    found = {section: hooks.of_section(section) for section in sections()}
    assert None not in found.values()
    intercepting = [hook for section, hook in found.items() if section.startswith("cgroup/")]
    assert sorted(intercepting) == sorted((hooks.GETSOCKOPT, *hooks.SOCK_ADDR))


def test_no_two_places_are_the_same():
    for part in ("name", "attach_type", "section"):
        assert len({getattr(hook, part) for hook in hooks.HOOKS}) == len(hooks.HOOKS)


@pytest.mark.parametrize(
    ("struct", "hook"),
    [("bpf_sock_ops", hooks.SOCK_OPS), ("__sk_buff", hooks.SK_SKB), ("bpf_sockopt", hooks.GETSOCKOPT)],
)
def test_bcc_takes_the_one_place_of_a_struct(struct, hook):
    assert bcc._hook("program", struct, "x.c") == hook


def test_bcc_cannot_tell_places_of_one_struct_apart():
    with pytest.raises(
        SockredirError, match="cannot tell to which of 10 hooks that take a struct bpf_sock_addr"
    ) as raised:
        bcc._hook("connect4", "bpf_sock_addr", "x.c")
    assert raised.value.cure == "compile it with clang: compiler: clang"


def test_bcc_names_the_structs_that_it_can_tell():
    with pytest.raises(SockredirError, match="not a program that redirects sockets") as raised:
        bcc._hook("filter", "xdp_md", "x.c")
    assert "bpf_sock_ops" in raised.value.cure
    assert "bpf_sock_addr" not in raised.value.cure
