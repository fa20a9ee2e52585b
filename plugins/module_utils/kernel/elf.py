# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read an object file strictly and without libelf: whether it can be loaded, before libbpf sees it.

Source of the format: elf(5); section names as in libbpf's program_types documentation.
"""

from __future__ import annotations

import struct
from typing import Iterator, List, NamedTuple, Optional, Tuple

from ..errors import SockredirError
from . import hooks

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_EM_BPF = 247
_ET_REL = 1
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_NOBITS = 1, 2, 8
_SHF_EXECINSTR = 4
_STT_FUNC = 2
_MACHINES = {3: "x86", 21: "PowerPC64", 22: "s390", 40: "ARM", 62: "x86-64", 183: "AArch64", 243: "RISC-V"}

_COMPILE = "compile it with clang -O2 -g -target bpf"


class Program(NamedTuple):
    """A program in an object file; ``prog_type`` and ``attach_type`` as in <linux/bpf.h>."""

    name: str
    section: str
    prog_type: int
    attach_type: int


class Section(NamedTuple):
    """A section with its bytes (none if it takes no room in the file)."""

    name: str
    kind: int
    flags: int
    link: int
    data: bytes


def programs(data: bytes, where: str) -> List[Program]:
    """The programs of a BPF object that this loader can load, sorted by name.

    :param data: bytes, the file.
    :param where: str, how to call the file in errors.
    :raises SockredirError: it is not a BPF object, or it holds anything that cannot be loaded.
    """
    sections = read(data, where)
    _refuse_legacy_maps(sections, where)
    found = sorted(_programs(sections, where))
    if not found:
        raise SockredirError(f"{where} contains no program", f"it needs functions in SEC({_known()})")
    if not any(section.name == ".BTF" for section in sections):
        raise SockredirError(f"{where} has no type information (.BTF), which its maps need", _COMPILE)
    return found


def is_elf(data: bytes) -> bool:
    """Whether the file begins like an ELF file; else it is taken for C."""
    return data[:4] == b"\x7fELF"


def read(data: bytes, where: str) -> List[Section]:
    """The sections of a BPF object file.

    :raises SockredirError: it is not an ELF file, not one for BPF, or damaged.
    """
    if not is_elf(data):
        raise SockredirError(f"{where} is not an ELF file", _COMPILE)
    if data[4:6] == b"\2\2":
        raise SockredirError(f"{where} is a big-endian object, this host is little-endian", _COMPILE)
    if data[4:6] != b"\2\1":
        raise SockredirError(f"{where} is not a 64-bit ELF file", _COMPILE)
    try:
        return _sections(data, where)
    except (struct.error, IndexError, ValueError) as error:
        raise SockredirError(f"{where} is a damaged ELF file: {error}", _COMPILE) from error


def _sections(data: bytes, where: str) -> List[Section]:
    header = _HEADER.unpack_from(data)
    kind, machine, start, size, count, names = header[1], header[2], header[6], header[11], header[12], header[13]
    if machine != _EM_BPF:
        made_for = _MACHINES.get(machine, f"machine {machine}")
        raise SockredirError(f"{where} is an ELF file for {made_for}, not for BPF", _COMPILE)
    if kind != _ET_REL or size != _SECTION.size or not 0 < count <= len(data) // size:
        raise ValueError("no section table of an object file")
    raw = [_SECTION.unpack_from(data, start + size * index) for index in range(count)]
    strings = _content(data, raw[names])
    return [Section(_string(strings, one[0]), one[1], one[2], one[6], _content(data, one)) for one in raw]


def _content(data: bytes, raw: Tuple[int, ...]) -> bytes:
    kind, offset, size = raw[1], raw[4], raw[5]
    if kind in (0, _SHT_NOBITS):
        return b""
    if offset + size > len(data):
        raise ValueError("it is cut off")
    return data[offset : offset + size]


def _string(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode("utf-8")


def _refuse_legacy_maps(sections: List[Section], where: str) -> None:
    if any(section.name == "maps" or section.name.startswith("maps/") for section in sections):
        raise SockredirError(
            f'{where} defines maps with SEC("maps"), which libbpf 1.0 and newer refuse',
            'define them with SEC(".maps") and __uint/__type',
        )


def _programs(sections: List[Section], where: str) -> Iterator[Program]:
    for name, index in _functions(sections):
        section = sections[index]
        if section.name == ".text" or not section.flags & _SHF_EXECINSTR or section.kind != _SHT_PROGBITS:
            continue  # .text holds functions that programs call
        types = program_type(section.name)
        if types is None:
            raise SockredirError(
                f'{where} contains the program {name} in SEC("{section.name}"): a type that does not redirect sockets',
                f"use SEC({_known()})",
            )
        yield Program(name, section.name, *types)


def program_type(section: str) -> Optional[Tuple[int, int]]:
    """Program type and attach type of a section's name; None if it is not ours."""
    hook = hooks.of_section(section)
    return (hook.program_type, hook.attach_type) if hook else None


def _functions(sections: List[Section]) -> Iterator[Tuple[str, int]]:
    for table in sections:
        if table.kind != _SHT_SYMTAB:
            continue
        strings = sections[table.link].data
        for place in range(0, len(table.data) - len(table.data) % _SYMBOL.size, _SYMBOL.size):
            name, info, _other, index, _value, _size = _SYMBOL.unpack_from(table.data, place)
            if info & 0xF == _STT_FUNC and 0 < index < len(sections):
                yield _string(strings, name), index


def _known() -> str:
    return " or ".join(f'"{hook.section}"' for hook in hooks.HOOKS)
