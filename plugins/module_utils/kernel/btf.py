# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads BTF, the kernel's type format: where a program's global variables lie, how a map's values are laid out.

Source of the format: the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import SockredirError

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(11, 20)

# Bytes that follow a type: a fixed part, and one for each of its members.
_TAIL = {INT: (4, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8), FUNC_PROTO: (0, 8), VAR: (4, 0)}
_TAIL.update({DATASEC: (0, 12), DECL_TAG: (4, 0), ENUM64: (0, 12)})
_ALIASES = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
_SIGNED, _CHAR, _BOOL = 1, 2, 4
_WORDS = {"true": 1, "yes": 1, "on": 1, "false": 0, "no": 0, "off": 0}
_MAX_DEPTH = 32


class Type(NamedTuple):
    """:ivar reference: int, size in bytes or the id of another type, as the kind has it.
    :ivar flag: bool, the kind flag: bit fields in a struct, signed values in an enum.
    :ivar tail: the 32-bit numbers that follow.
    """

    kind: int
    name: str
    reference: int
    flag: bool
    tail: Tuple[int, ...]


class Variable(NamedTuple):
    """A global variable: where it is in its section, in bytes, and its type."""

    offset: int
    size: int
    type_id: int


class Field(NamedTuple):
    """A scalar of a flattened struct: ``side[1].charge``, where it is, in bits, and its type's name."""

    path: str
    bit_offset: int
    bit_size: int
    type_name: str


class Btf:
    """The types of one object or program.

    :param data: bytes, raw BTF.
    :raises SockredirError: it is not BTF, or cut off.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._strings, self.types = _parse(data)
        except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
            raise SockredirError(f"the BTF is damaged: {error}") from error

    def find(self, kind: int, name: str) -> int:
        """The id of the first type of this kind and name; 0 (void) if there is none."""
        for number, found in enumerate(self.types):
            if found.kind == kind and found.name == name:
                return number
        return 0

    def variables(self, section: str) -> Dict[str, Variable]:
        """The global variables of a section such as ``.rodata``, by name."""
        tail = self.types[self.find(DATASEC, section)].tail
        found = {}
        for type_id, offset, size in zip(tail[0::3], tail[1::3], tail[2::3]):
            variable = self.types[type_id]
            found[variable.name] = Variable(offset, size, variable.reference)
        return found

    def resolve(self, type_id: int) -> int:
        """The id behind typedefs and qualifiers."""
        for _step in range(_MAX_DEPTH):
            if self.types[type_id].kind not in _ALIASES:
                return type_id
            type_id = self.types[type_id].reference
        raise SockredirError("the BTF is damaged: a typedef without end")

    def size(self, type_id: int) -> int:
        """Bytes that a value of the type takes."""
        found = self.types[self.resolve(type_id)]
        if found.kind == PTR:
            return 8
        if found.kind == ARRAY:
            return found.tail[2] * self.size(found.tail[0])
        if found.kind in (INT, ENUM, ENUM64, FLOAT, STRUCT, UNION):
            return found.reference
        return 0

    def type_name(self, type_id: int) -> str:
        """As C would write it, near enough for a person: ``__u32``, ``char[16]``, ``struct pair_flow``."""
        found = self.types[type_id]
        if found.kind in _ALIASES and found.kind != TYPEDEF:
            return self.type_name(found.reference)
        if found.kind == ARRAY:
            return f"{self.type_name(found.tail[0])}[{found.tail[2]}]"
        if found.kind == PTR:
            return f"{self.type_name(found.reference)} *"
        words = {STRUCT: "struct ", UNION: "union ", ENUM: "enum ", ENUM64: "enum "}
        return (words.get(found.kind, "") + (found.name or "(anonymous)")).strip() if type_id else "void"

    def fields(self, type_id: int) -> List[Field]:
        """A type flattened into its scalars; arrays of scalars stay one field."""
        return list(self._flatten(type_id, "", 0, 0))

    def _flatten(self, type_id: int, path: str, bit_offset: int, depth: int) -> Iterator[Field]:
        found = self.types[self.resolve(type_id)]
        if depth > _MAX_DEPTH:
            raise SockredirError("the BTF is damaged: a struct without end")
        if found.kind in (STRUCT, UNION):
            yield from self._members(found, path, bit_offset, depth)
        elif found.kind == ARRAY and self.types[self.resolve(found.tail[0])].kind in (STRUCT, UNION, ARRAY):
            bits = 8 * self.size(found.tail[0])
            for index in range(found.tail[2]):
                yield from self._flatten(found.tail[0], f"{path}[{index}]", bit_offset + index * bits, depth + 1)
        else:
            yield Field(path, bit_offset, 8 * self.size(type_id), self.type_name(type_id))

    def _members(self, found: Type, path: str, bit_offset: int, depth: int) -> Iterator[Field]:
        for name_offset, type_id, place in zip(found.tail[0::3], found.tail[1::3], found.tail[2::3]):
            name = _string(self._strings, name_offset)
            inner = f"{path}.{name}" if path and name else path or name
            bits = place >> 24 if found.flag else 0
            offset = bit_offset + (place & 0xFFFFFF if found.flag else place)
            if bits:
                yield Field(inner, offset, bits, self.type_name(type_id))
            else:
                yield from self._flatten(type_id, inner, offset, depth + 1)

    def encode(self, type_id: int, value: Any) -> bytes:
        """The bytes of a value of this type: whole numbers, booleans, enumerators by name, text for char arrays, lists.

        :raises ValueError: the value does not fit; the text says what would.
        """
        found = self.types[self.resolve(type_id)]
        if found.kind == ARRAY:
            return self._encode_array(found, self.type_name(type_id), value)
        if found.kind in (ENUM, ENUM64) and isinstance(value, str):
            value = self._enumerator(found, value)
        if found.kind == INT:
            encoding = found.tail[0] >> 24
            return _encode_int(value, found.reference, bool(encoding & _SIGNED), bool(encoding & _BOOL))
        if found.kind in (ENUM, ENUM64):
            return _encode_int(value, found.reference, found.flag, False)
        raise ValueError(f"variables of type {self.type_name(type_id)} cannot be set")

    def _encode_array(self, found: Type, name: str, value: Any) -> bytes:
        element, _index, count = found.tail
        kind = self.types[self.resolve(element)]
        if isinstance(value, str) and kind.kind == INT and kind.reference == 1:
            text = value.encode("utf-8")
            if len(text) >= count:
                raise ValueError(f"{name} holds at most {count - 1} bytes of text, not {len(text)}")
            return text.ljust(count, b"\0")
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} takes a list, not {value!r}")
        if len(value) > count:
            raise ValueError(f"{name} takes at most {count} values, not {len(value)}")
        return b"".join(self.encode(element, item) for item in value).ljust(count * self.size(element), b"\0")

    def _enumerator(self, found: Type, name: str) -> int:
        step = 2 if found.kind == ENUM else 3
        names = [_string(self._strings, offset) for offset in found.tail[0::step]]
        if name not in names:
            raise ValueError(f"enum {found.name} has {', '.join(names)}, not {name!r}")
        place = names.index(name) * step
        low, high = found.tail[place + 1], found.tail[place + 2] if step == 3 else 0
        number, bits = low | high << 32, 32 * (step - 1)
        return number - (1 << bits) if found.flag and number >> (bits - 1) else number


def _encode_int(value: Any, size: int, signed: bool, boolean: bool) -> bytes:
    number = _whole(value)
    low, high = (-(1 << (8 * size - 1)), (1 << (8 * size - 1)) - 1) if signed else (0, (1 << 8 * size) - 1)
    if boolean:
        low, high = 0, 1
    if number is None or not low <= number <= high:
        wanted = "true or false" if boolean else f"a whole number from {low} to {high}"
        raise ValueError(f"it takes {wanted}, not {value!r}")
    return number.to_bytes(size, "little", signed=signed)


def _whole(value: Any) -> Optional[int]:
    if isinstance(value, (bool, int)):
        return int(value)
    if isinstance(value, str):
        try:
            return _WORDS[value.strip().lower()] if value.strip().lower() in _WORDS else int(value.strip(), 0)
        except ValueError:
            return None
    return None


def _parse(data: bytes) -> Tuple[bytes, List[Type]]:
    magic, version, _flags, header, type_start, type_bytes, string_start, string_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != 1:
        raise ValueError(f"magic {magic:#x}, version {version}")
    types = data[header + type_start : header + type_start + type_bytes]
    strings = data[header + string_start : header + string_start + string_bytes]
    if len(types) != type_bytes or len(strings) != string_bytes:
        raise ValueError("it is cut off")
    return strings, [Type(0, "", 0, False, ())] + list(_types(types, strings))


def _types(types: bytes, strings: bytes) -> Iterator[Type]:
    place = 0
    while place < len(types):
        name, info, reference = _TYPE.unpack_from(types, place)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        fixed, each = _TAIL.get(kind, (0, 0))
        if not 0 < kind <= ENUM64:
            raise ValueError(f"type kind {kind} is unknown")
        tail = struct.unpack_from(f"<{(fixed + each * count) // 4}I", types, place + _TYPE.size)
        yield Type(kind, _string(strings, name), reference, bool(info >> 31), tail)
        place += _TYPE.size + 4 * len(tail)


def _string(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode("utf-8")
