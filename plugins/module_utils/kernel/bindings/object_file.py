# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs and maps of an object file, and programs from instructions."""

from __future__ import annotations

import ctypes
from typing import Iterator, List

from .binding import (
    LOG_BYTES,
    NAME_BYTES,
    SIZE,
    U32,
    BpfError,
    Descriptor,
    Fd,
    call,
    fields,
    library,
    number_of,
    open_pointer,
    text_of,
)


class _ProgLoadOpts(ctypes.Structure):
    _fields_ = fields(
        "size sz", "int attempts", "u32 expected_attach_type prog_btf_fd prog_flags prog_ifindex kern_version",
        "u32 attach_btf_id attach_prog_fd attach_btf_obj_fd", "ptr fd_array func_info",
        "u32 func_info_cnt func_info_rec_size", "ptr line_info",
        "u32 line_info_cnt line_info_rec_size log_level log_size", "ptr log_buf",
    )  # fmt: skip


def load_program(
    prog_type: int, name: str, instructions: bytes, attach_type: int = 0, licence: str = "Dual BSD/GPL"
) -> Fd:
    """Load instructions (8 bytes each, map descriptors already in them).

    :raises BpfError: with the verifier's log as ``detail``.
    """
    log = ctypes.create_string_buffer(LOG_BYTES)
    opts = _ProgLoadOpts(
        sz=ctypes.sizeof(_ProgLoadOpts),
        expected_attach_type=attach_type,
        log_size=len(log),
        log_buf=ctypes.addressof(log),
    )
    short = name.encode()[: NAME_BYTES - 1]
    try:
        return Fd(
            call(
                f"loading the program {name}",
                "bpf_prog_load",
                prog_type,
                short,
                licence.encode(),
                instructions,
                len(instructions) // 8,
                ctypes.byref(opts),
            )
        )
    except BpfError as error:
        error.detail = text_of(log.value).strip() or error.detail
        raise


class _OpenOpts(ctypes.Structure):
    _fields_ = fields("size sz", "str object_name")


class Object:
    """An object file in libbpf's hands: opened, adjusted, loaded. Closing it closes its descriptors; pins stay.

    :param data: bytes, the ELF file.
    :param name: str, begins the names of its .rodata and .bss maps.
    :raises BpfError: libbpf cannot use the file; ``detail`` says why.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._pointer = 0
        self._data = data  # libbpf reads from it, without a copy
        opts = _OpenOpts(ctypes.sizeof(_OpenOpts), name.encode())
        self._pointer = open_pointer(
            f"opening the object {name}", "bpf_object__open_mem", data, len(data), ctypes.byref(opts)
        )
        self.name = name

    def programs(self) -> List[ObjectProgram]:
        """In the order of the file."""
        return [ObjectProgram(self, pointer) for pointer in self._walk("bpf_object__next_program")]

    def maps(self) -> List[ObjectMap]:
        """In the order of the file; internal ones (.rodata ...) too."""
        return [ObjectMap(self, pointer) for pointer in self._walk("bpf_object__next_map")]

    def _walk(self, name: str) -> Iterator[int]:
        following, pointer = getattr(library(), name), None
        while True:
            pointer = following(self._pointer, pointer)
            if not pointer:
                return
            yield pointer

    def btf(self) -> bytes:
        """The object's BTF, its variables' offsets settled; empty if it was compiled without ``-g``."""
        pointer, size = library().bpf_object__btf(self._pointer), U32(0)
        if not pointer:
            return b""
        data = library().btf__raw_data(pointer, ctypes.byref(size))
        return ctypes.string_at(data, size.value) if data else b""

    def load(self) -> None:
        """Create its maps and load its programs: all of them, or none stays.

        :raises BpfError: with the verifier's log as ``detail``.
        """
        call(f"loading the object {self.name}", "bpf_object__load", self._pointer)

    def close(self) -> None:
        pointer, self._pointer = self._pointer, 0
        if pointer:
            library().bpf_object__close(pointer)

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class ObjectProgram:
    """A program of an :class:`Object`; lives as long as that."""

    def __init__(self, owner: Object, pointer: int) -> None:
        self._owner, self._pointer = owner, pointer
        self.name = text_of(library().bpf_program__name(pointer))
        self.section = text_of(library().bpf_program__section_name(pointer))

    @property
    def type(self) -> int:
        return library().bpf_program__type(self._pointer)

    @property
    def attach_type(self) -> int:
        return library().bpf_program__expected_attach_type(self._pointer)

    def set_type(self, prog_type: int, attach_type: int) -> None:
        """Before loading: what the section's name does not say, or says otherwise."""
        call(f"setting the type of {self.name}", "bpf_program__set_type", self._pointer, prog_type)
        call(
            f"setting the attach type of {self.name}",
            "bpf_program__set_expected_attach_type",
            self._pointer,
            attach_type,
        )

    def set_autoload(self, wanted: bool) -> None:
        """Before loading: leave this program out."""
        call(f"choosing {self.name}", "bpf_program__set_autoload", self._pointer, wanted)

    def fileno(self) -> int:
        """The loaded program's descriptor, which the object owns."""
        return call(f"opening the program {self.name}", "bpf_program__fd", self._pointer)


class ObjectMap:
    """A map of an :class:`Object`; lives as long as that."""

    def __init__(self, owner: Object, pointer: int) -> None:
        self._owner, self._pointer = owner, pointer
        self.name = text_of(library().bpf_map__name(pointer))

    @property
    def type(self) -> int:
        return library().bpf_map__type(self._pointer)

    @property
    def key_size(self) -> int:
        return library().bpf_map__key_size(self._pointer)

    @property
    def value_size(self) -> int:
        return library().bpf_map__value_size(self._pointer)

    @property
    def max_entries(self) -> int:
        return library().bpf_map__max_entries(self._pointer)

    @property
    def flags(self) -> int:
        return library().bpf_map__map_flags(self._pointer)

    @property
    def key_type_id(self) -> int:
        """In the object's BTF; 0 if the map was defined only by sizes."""
        return library().bpf_map__btf_key_type_id(self._pointer)

    @property
    def value_type_id(self) -> int:
        """In the object's BTF; 0 if the map was defined only by sizes."""
        return library().bpf_map__btf_value_type_id(self._pointer)

    @property
    def internal(self) -> bool:
        """Whether libbpf made it for global variables (.rodata, .data, .bss, .kconfig)."""
        return library().bpf_map__is_internal(self._pointer)

    def set_max_entries(self, entries: int) -> None:
        """Before loading."""
        call(f"setting the size of {self.name}", "bpf_map__set_max_entries", self._pointer, entries)

    def initial_value(self) -> bytes:
        """What the global variables of an internal map hold at load; empty for other maps."""
        size = SIZE(0)
        data = library().bpf_map__initial_value(self._pointer, ctypes.byref(size))
        return ctypes.string_at(data, size.value) if data else b""

    def set_initial_value(self, value: bytes) -> None:
        """Before loading; of the same size."""
        call(f"setting the variables in {self.name}", "bpf_map__set_initial_value", self._pointer, value, len(value))

    def reuse(self, descriptor: Descriptor) -> None:
        """Before loading: use this existing map. libbpf copies the descriptor.

        Its name, type and sizes are taken from the existing map: compare them first.
        """
        call(f"reusing a map as {self.name}", "bpf_map__reuse_fd", self._pointer, number_of(descriptor))

    def fileno(self) -> int:
        """The created or reused map's descriptor, which the object owns."""
        return call(f"opening the map {self.name}", "bpf_map__fd", self._pointer)
