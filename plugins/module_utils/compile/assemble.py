# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write a BPF object file, as clang would, from instructions of another compiler.

What libbpf needs, and no more: programs in sections of their own, maps defined by BTF, metadata in .rodata, a licence.
Sources of the formats: elf(5), the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

from ..kernel import btf

_ET_REL, _EM_BPF, _EHDR, _SHDR = 1, 247, 64, 64
_PROGBITS, _SYMTAB, _STRTAB, _REL = 1, 2, 3, 9
_WRITE, _ALLOC, _EXEC = 1, 2, 4
_GLOBAL_OBJECT, _GLOBAL_FUNC = 0x11, 0x12
_R_BPF_64_64 = 1
_LD_IMM64 = 0x18
_INSN_BYTES = 8


class Program(NamedTuple):
    """:ivar code: its instructions.
    :ivar maps: byte offset of each instruction that takes a map's address -> the map's name.
    """

    name: str
    section: str
    code: bytes
    maps: Dict[int, str]


class Map(NamedTuple):
    """Numbers as in <linux/bpf.h>, sizes in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


#: Text of so many bytes, or a 32-bit number.
Value = Union[int, bytes]


def build(programs: List[Program], maps: List[Map], constants: Dict[str, Value], licence: str) -> bytes:
    """The object file's bytes.

    :param constants: global ``const volatile`` variables by name; there must be one.
    :raises KeyError: a program uses a map that is not among ``maps``.
    """
    file = _File()
    sections = {program.name: file.section(program.section, _PROGBITS, _ALLOC | _EXEC, _unlinked(program))
                for program in programs}  # fmt: skip
    for program in programs:
        file.symbol(program.name, _GLOBAL_FUNC, sections[program.name], 0, len(program.code))
    types = _Types()
    _add_maps(file, types, maps)
    _add_constants(file, types, constants)
    file.section("license", _PROGBITS, _WRITE | _ALLOC, licence.encode("ascii") + b"\0")
    file.section(".BTF", _PROGBITS, 0, types.data())
    for program in programs:
        file.relocations(sections[program.name], program.maps)
    return file.data()


def _unlinked(program: Program) -> bytes:
    """The code with nothing if libbpf will put the maps."""
    code = bytearray(program.code)
    for offset in program.maps:
        if code[offset] != _LD_IMM64:
            raise ValueError(f"{program.name}: the instruction at byte {offset} takes no address")
        code[offset + 1] &= 0x0F
        code[offset + 4 : offset + 8] = bytes(4)
        code[offset + 12 : offset + 16] = bytes(4)
    return bytes(code)


def _add_maps(file: _File, types: _Types, maps: List[Map]) -> None:
    size = 8 * len(Map._fields[1:])
    section = file.section(".maps", _PROGBITS, _WRITE | _ALLOC, bytes(size * len(maps)))
    variables = []
    for index, one in enumerate(maps):
        names = ("type", "key_size", "value_size", "max_entries", "map_flags")
        members = [(name, types.number_as_type(value)) for name, value in zip(names, one[1:])]
        variables.append((types.variable(one.name, types.struct(members)), index * size, size))
        file.symbol(one.name, _GLOBAL_OBJECT, section, index * size, size)
    if maps:
        types.datasec(".maps", variables, size * len(maps))


def _add_constants(file: _File, types: _Types, constants: Dict[str, Value]) -> None:
    content, variables = b"", []
    for name, value in constants.items():
        raw = value.to_bytes(4, "little") if isinstance(value, int) else value
        kind = types.u32() if isinstance(value, int) else types.chars(len(value))
        content += bytes(-len(content) % 4)
        variables.append((name, types.variable(name, types.const(kind)), len(content), len(raw)))
        content += raw
    section = file.section(".rodata", _PROGBITS, _ALLOC, content)
    for name, _type, offset, size in variables:
        file.symbol(name, _GLOBAL_OBJECT, section, offset, size)
    types.datasec(".rodata", [variable[1:] for variable in variables], len(content))


class _File:
    """An ELF file in the making: sections and symbols are numbered as they come."""

    def __init__(self) -> None:
        self._sections: List[Tuple[str, int, int, int, int, int, bytes]] = [("", 0, 0, 0, 0, 0, b"")]
        self._symbols = [bytes(24)]
        self._numbers: Dict[str, int] = {}
        self._strings = b"\0"

    def section(
        self, name: str, kind: int, flags: int, content: bytes, link: int = 0, info: int = 0, size: int = 0
    ) -> int:
        self._sections.append((name, kind, flags, link, info, size, content))
        return len(self._sections) - 1

    def symbol(self, name: str, info: int, section: int, value: int, size: int) -> None:
        self._numbers[name] = len(self._symbols)
        self._symbols.append(struct.pack("<IBBHQQ", self._string(name), info, 0, section, value, size))

    def relocations(self, section: int, maps: Dict[int, str]) -> None:
        entries = [
            struct.pack("<QQ", offset, self._numbers[name] << 32 | _R_BPF_64_64) for offset, name in maps.items()
        ]
        if entries:
            name = ".rel" + self._sections[section][0]
            # The symbol table comes last but one; its number is set in data().
            self.section(name, _REL, 0, b"".join(entries), link=-1, info=section, size=16)

    def data(self) -> bytes:
        symbols = self.section(".symtab", _SYMTAB, 0, b"".join(self._symbols), link=-2, info=1, size=24)
        names = [self._string(section[0]) for section in self._sections] + [self._string(".strtab")]
        strings = self.section(".strtab", _STRTAB, 0, self._strings)
        links = {-1: symbols, -2: strings}
        body, headers = b"", b""
        for name, (_name, kind, flags, link, info, size, content) in zip(names, self._sections):
            body += bytes(-len(body) % 8)
            place = (_EHDR + len(body), len(content)) if kind else (0, 0)
            headers += struct.pack("<IIQQQQIIQQ", name, kind, flags, 0, *place, links.get(link, link), info, 8, size)
            body += content
        body += bytes(-len(body) % 8)
        ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
        fixed = (_ET_REL, _EM_BPF, 1, 0, 0, _EHDR + len(body), 0, _EHDR, 0, 0, _SHDR, len(self._sections), strings)
        return struct.pack("<16sHHIQQQIHHHHHH", ident, *fixed) + body + headers

    def _string(self, text: str) -> int:
        offset = len(self._strings) if text else 0
        self._strings += text.encode("utf-8") + b"\0" if text else b""
        return offset


class _Types:
    """BTF in the making: each method returns the number of a type."""

    def __init__(self) -> None:
        self._types: List[bytes] = []
        self._strings = b"\0"
        self._int = self._add("int", btf.INT, 4, [1 << 24 | 32])
        self._char = self._add("char", btf.INT, 1, [1 << 24 | 8])
        self._u32 = self._add("unsigned int", btf.INT, 4, [32])

    def u32(self) -> int:
        return self._u32

    def chars(self, count: int) -> int:
        return self._add("", btf.ARRAY, 0, [self._char, self._int, count])

    def number_as_type(self, number: int) -> int:
        """A pointer to ``int[number]``: how a map's definition says a number."""
        return self._add("", btf.PTR, self._add("", btf.ARRAY, 0, [self._int, self._int, number]))

    def struct(self, members: List[Tuple[str, int]]) -> int:
        fields = [part for index, (name, kind) in enumerate(members) for part in (self._string(name), kind, 64 * index)]
        return self._add("", btf.STRUCT, 8 * len(members), fields, len(members))

    def const(self, kind: int) -> int:
        return self._add("", btf.CONST, self._add("", btf.VOLATILE, kind))

    def variable(self, name: str, kind: int) -> int:
        return self._add(name, btf.VAR, kind, [1])

    def datasec(self, name: str, variables: List[Tuple[int, int, int]], size: int) -> int:
        return self._add(name, btf.DATASEC, size, [part for one in variables for part in one], len(variables))

    def data(self) -> bytes:
        types = b"".join(self._types)
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        return header + types + self._strings

    def _add(self, name: str, kind: int, reference: int, tail: Sequence[int] = (), count: int = 0) -> int:
        numbers = (self._string(name), kind << 24 | count, reference, *tail)
        self._types.append(struct.pack(f"<{len(numbers)}I", *numbers))
        return len(self._types)

    def _string(self, text: str) -> int:
        offset = len(self._strings) if text else 0
        self._strings += text.encode("utf-8") + b"\0" if text else b""
        return offset
