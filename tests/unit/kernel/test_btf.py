# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Types are read as the kernel's BTF has them, and values take the form that a type asks for."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import btf
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.btf import Btf, Field


class Writer:
    """Raw BTF, type by type; numbers begin at 1."""

    def __init__(self):
        self.types, self.strings, self.count = b"", b"\0", 0

    def text(self, name):
        if not name:
            return 0
        self.strings += name.encode() + b"\0"
        return len(self.strings) - len(name) - 1

    def add(self, kind, name="", reference=0, tail=(), count=0, flag=0):
        numbers = (self.text(name), flag << 31 | kind << 24 | count, reference, *tail)
        self.types += struct.pack(f"<{len(numbers)}I", *(number & 0xFFFFFFFF for number in numbers))
        self.count += 1
        return self.count

    def whole(self, name, size, encoding=0):
        return self.add(btf.INT, name, size, [encoding << 24 | 8 * size])

    def group(self, kind, name, size, *members, flag=0):
        tail = [part for label, type_id, place in members for part in (self.text(label), type_id, place)]
        return self.add(kind, name, size, tail, len(members), flag)

    def read(self):
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        return Btf(header + self.types + self.strings)


@pytest.fixture
def writer():
    return Writer()


def test_variables_and_the_way_through_qualifiers(writer):
    u32 = writer.whole("unsigned int", 4)
    alias = writer.add(btf.TYPEDEF, "__u32", u32)
    const = writer.add(btf.CONST, "", writer.add(btf.VOLATILE, "", alias))
    var = writer.add(btf.VAR, "first_port", const, [1])
    writer.add(btf.DATASEC, ".rodata", 4, [var, 0, 4], 1)
    types = writer.read()
    assert types.variables(".rodata") == {"first_port": btf.Variable(0, 4, const)}
    assert types.variables(".data") == {}
    assert types.resolve(const) == u32
    assert types.type_name(const) == "__u32"
    assert types.size(const) == 4


def test_a_struct_is_flattened_to_its_scalars(writer):
    u16, u64 = writer.whole("__u16", 2), writer.whole("__u64", 8)
    pair = writer.add(btf.ARRAY, "", 0, [u16, u16, 2])
    side = writer.group(btf.STRUCT, "side", 16, ("cookie", u64, 0), ("ports", pair, 64))
    sides = writer.add(btf.ARRAY, "", 0, [side, u16, 2])
    either = writer.group(btf.UNION, "", 8, ("number", u64, 0), ("pointer", writer.add(btf.PTR, "", side), 0))
    flow = writer.group(btf.STRUCT, "flow", 48, ("side", sides, 0), ("", either, 256), ("last", u64, 320))
    assert writer.read().fields(flow) == [
        Field("side[0].cookie", 0, 64, "__u64"),
        Field("side[0].ports", 64, 32, "__u16[2]"),
        Field("side[1].cookie", 128, 64, "__u64"),
        Field("side[1].ports", 192, 32, "__u16[2]"),
        Field("number", 256, 64, "__u64"),
        Field("pointer", 256, 64, "struct side *"),
        Field("last", 320, 64, "__u64"),
    ]


def test_bit_fields(writer):
    u32 = writer.whole("unsigned int", 4)
    bits = writer.group(btf.STRUCT, "bits", 4, ("a", u32, 3 << 24 | 0), ("b", u32, 5 << 24 | 3), flag=1)
    assert writer.read().fields(bits) == [Field("a", 0, 3, "unsigned int"), Field("b", 3, 5, "unsigned int")]


VALUES = [
    ("__u8", 1, 0, 255, b"\xff"),
    ("__u16", 2, 0, "0x1234", b"\x34\x12"),
    ("__s64", 8, 1, -1, b"\xff" * 8),
    ("__s8", 1, 1, -128, b"\x80"),
    ("__u32", 4, 0, " 7 ", b"\7\0\0\0"),
    ("__u32", 4, 0, True, b"\1\0\0\0"),
    ("_Bool", 1, 4, True, b"\1"),
    ("_Bool", 1, 4, "no", b"\0"),
    ("_Bool", 1, 4, "Yes", b"\1"),
]


@pytest.mark.parametrize(("name", "size", "encoding", "value", "raw"), VALUES)
def test_whole_numbers(writer, name, size, encoding, value, raw):
    number = writer.whole(name, size, encoding)
    assert writer.read().encode(number, value) == raw


REFUSED = [
    ("__u8", 1, 0, 256, "a whole number from 0 to 255, not 256"),
    ("__u8", 1, 0, -1, "a whole number from 0 to 255, not -1"),
    ("__s8", 1, 1, 128, "a whole number from -128 to 127, not 128"),
    ("__u32", 4, 0, "many", "a whole number from 0 to 4294967295, not 'many'"),
    ("__u32", 4, 0, 1.5, "not 1.5"),
    ("__u32", 4, 0, None, "not None"),
    ("__u32", 4, 0, [1], r"not \[1\]"),
    ("_Bool", 1, 4, 2, "true or false, not 2"),
    ("_Bool", 1, 4, "perhaps", "true or false, not 'perhaps'"),
]


@pytest.mark.parametrize(("name", "size", "encoding", "value", "message"), REFUSED)
def test_what_does_not_fit(writer, name, size, encoding, value, message):
    number = writer.whole(name, size, encoding)
    with pytest.raises(ValueError, match=message):
        writer.read().encode(number, value)


def test_text_lists_and_enumerators(writer):
    char, u16 = writer.whole("char", 1, 2), writer.whole("__u16", 2)
    name = writer.add(btf.ARRAY, "", 0, [char, u16, 4])
    ports = writer.add(btf.ARRAY, "", 0, [u16, u16, 3])
    labels = [writer.text(label) for label in ("OFF", "ON", "BACK")]
    mode = writer.add(btf.ENUM, "mode", 4, [labels[0], 0, labels[1], 7, labels[2], -1], 3, 1)
    wide = writer.add(btf.ENUM64, "wide", 8, [labels[1], 1, 2], 1, 0)
    inner = writer.group(btf.STRUCT, "inner", 2, ("port", u16, 0))
    types = writer.read()
    assert types.encode(name, "abc") == b"abc\0"
    assert types.encode(name, "é") == "é".encode() + b"\0\0"
    assert types.encode(ports, [1, 2]) == b"\1\0\2\0\0\0"
    assert types.encode(mode, "ON") == b"\7\0\0\0"
    assert types.encode(mode, "BACK") == b"\xff" * 4
    assert types.encode(mode, 7) == b"\7\0\0\0"
    assert types.encode(wide, "ON") == struct.pack("<Q", 1 | 2 << 32)
    for number, value, message in [
        (name, "abcd", "at most 3 bytes of text, not 4"),
        (ports, [1, 2, 3, 4], "at most 3 values, not 4"),
        (ports, "80", "takes a list, not '80'"),
        (ports, [1, 65536], "from 0 to 65535"),
        (mode, "AWAY", "enum mode has OFF, ON, BACK, not 'AWAY'"),
        (inner, {"port": 1}, "variables of type struct inner cannot be set"),
    ]:
        with pytest.raises(ValueError, match=message):
            types.encode(number, value)


def test_damage_is_one_error(writer):
    writer.whole("int", 4)
    good = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5) + writer.types + writer.strings
    Btf(good)
    wrong_kind = bytearray(good)
    wrong_kind[24 + 7] = 31
    wrong_name = good[:24] + b"\xff\0\0\0" + good[28:]
    for data in [b"", good[:10], good[:-1], b"\0" * 24, bytes(wrong_kind), wrong_name, good[:2] + b"\2" + good[3:]]:
        with pytest.raises(SockredirError, match="the BTF is damaged"):
            Btf(data)


def test_endless_types_end(writer):
    writer.add(btf.TYPEDEF, "a", 2)
    writer.add(btf.TYPEDEF, "b", 1)
    writer.group(btf.STRUCT, "s", 8, ("self", 3, 0))
    types = writer.read()
    for walk in (types.resolve, types.fields):
        with pytest.raises(SockredirError, match="without end"):
            walk(1 if walk == types.resolve else 3)
