# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight asks for just the helpers that the compiled programs call, and for the places that they are attached to."""

from __future__ import annotations

import errno
import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import compilers
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import facts
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import elf, hooks, probe
from support.collection import ROOT

_CALL = 0x85


def called(code: bytes) -> set:
    """Names of the helpers that instructions call; an id that has no name in the library stays a number."""
    names = {number: name for name, number in probe.HELPERS.items()}
    found = set()
    for operation, registers, _offset, value in struct.iter_unpack("<BBhi", code):
        if operation == _CALL and registers >> 4 == 0:
            found.add(names.get(value, value))
    return found


@pytest.fixture(scope="module")
def sections() -> dict:
    if not compilers.find_clang():
        pytest.skip("needs clang")
    compiled = compilers.compile_source(str(ROOT / "bpf/sockredir.bpf.c"), {}, compilers.CLANG)
    return {section.name.split("/")[0]: section.data for section in elf.read(compiled.data, "the object")}


@pytest.mark.parametrize(
    ("program", "needed"),
    [("sockops", facts.SOCK_OPS_HELPERS), ("sk_msg", facts.SK_MSG_HELPERS), ("sk_skb", facts.SK_SKB_HELPERS)],
)
def test_the_helpers_of(sections, program, needed):
    own = called(sections[program])
    # Functions in .text are called by any program.
    assert own <= set(needed)
    assert set(needed) <= own | called(sections.get(".text", b""))


def test_the_kernel_is_asked_for_the_hooks_of_interception():
    """Each by loading a program for it; the sock_ops program is asked for by another prerequisite."""
    named = ["connect4", "claims", "getsockopt", "recvmsg6", "inbound", "connect4"]
    assert facts.intercept_hooks(named) == {"connect4": 0, "getsockopt": 0, "recvmsg6": 0, "inbound": 0}
    unknown = 4095
    assert probe.hook(hooks.SOCK_ADDR[0].program_type, unknown) == errno.EINVAL
    assert probe.hook(hooks.GETSOCKOPT.program_type, hooks.SOCK_ADDR[0].attach_type) == errno.EINVAL


def test_they_are_prerequisites_only_if_rules_are_wanted(bare):
    for places, asked in (([], False), ([["connect4", "apps"], ["claims", "apps"]], True)):
        found = bare.info("prerequisites", "drift", wanted={"hooks": places})
        assert ("intercept_hooks" in [each["name"] for each in found["prerequisites"]]) is asked
        assert not [each for each in found["preflight"]["missing"] if each["name"] == "intercept_hooks"]
