# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written as an object file is what the readers find in it."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile.assemble import Map, Program, build
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import btf, elf

# r1 = map 7; r0 = 1; exit
CODE = struct.pack("<BBhiBBhi", 0x18, 0x11, 0, 7, 0, 0, 0, 0) + struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
PROGRAMS = [
    Program("sockops", "sockops/tcp", CODE, {0: "peers"}),
    Program("verdict", "sk_msg", CODE[16:], {}),
]
MAPS = [Map("peers", 18, 4, 8, 64, 0), Map("events", 27, 0, 0, 4096, 0)]
CONSTANTS = {"bpf_metadata_digest": bytes(72), "bpf_metadata_layout": 3}


@pytest.fixture
def data():
    return build(PROGRAMS, MAPS, CONSTANTS, "GPL")


def test_programs(data):
    assert elf.programs(data, "it") == [
        elf.Program("sockops", "sockops/tcp", 13, 3),
        elf.Program("verdict", "sk_msg", 16, 7),
    ]


def sections(data):
    return {section.name: section for section in elf.read(data, "it")}


def test_code_is_there_without_the_maps_number(data):
    code = sections(data)["sockops/tcp"].data
    assert code[:16] == struct.pack("<BBhiBBhi", 0x18, 0x01, 0, 0, 0, 0, 0, 0)
    assert code[16:] == CODE[16:]
    assert struct.unpack("<QQ", sections(data)[".relsockops/tcp"].data)[0] == 0
    assert ".relsk_msg" not in sections(data)


def test_variables(data):
    types = btf.Btf(sections(data)[".BTF"].data)
    variables = types.variables(".rodata")
    assert {name: (found.offset, found.size) for name, found in variables.items()} == {
        "bpf_metadata_digest": (0, 72),
        "bpf_metadata_layout": (72, 4),
    }
    assert types.type_name(variables["bpf_metadata_digest"].type_id) == "char[72]"
    assert sections(data)[".rodata"].data[72:] == b"\3\0\0\0"
    assert set(types.variables(".maps")) == {"peers", "events"}


def test_a_map_that_is_not_there():
    with pytest.raises(KeyError):
        build([PROGRAMS[0]], [], CONSTANTS, "GPL")


def test_an_instruction_that_takes_no_map():
    with pytest.raises(ValueError, match="byte 16 takes no address"):
        build([Program("sockops", "sockops", CODE, {16: "peers"})], MAPS, CONSTANTS, "GPL")


@pytest.mark.parametrize("size", range(0, 1500, 7))
def test_a_part_of_it_is_refused_in_words(data, size):
    assert len(data) > 1500
    with pytest.raises(SockredirError, match="^it is "):
        elf.programs(data[:size], "it")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("xdp", r'contains the program sockops in SEC\("xdp"\): a type that does not redirect sockets'),
        ("kprobe/tcp_sendmsg", "a type that does not redirect sockets"),
        (".text", "contains no program"),
    ],
)
def test_sections_of_other_kinds(section, message):
    with pytest.raises(SockredirError, match=message):
        elf.programs(build([Program("sockops", section, CODE, {})], [], CONSTANTS, "GPL"), "it")


@pytest.mark.parametrize(
    ("section", "types"),
    [
        ("sockops", (13, 3)),
        ("?sockops", (13, 3)),
        ("sockops/x", (13, 3)),
        ("sk_msg", (16, 7)),
        ("sk_msg2", None),
        ("sk_skb/stream_verdict", (14, 5)),
        ("sk_skb/stream_verdict/bcc", (14, 5)),
        ("sk_skb/stream_parser", None),
        ("sk_skb", None),
        ("", None),
    ],
)
def test_program_type(section, types):
    assert elf.program_type(section) == types
