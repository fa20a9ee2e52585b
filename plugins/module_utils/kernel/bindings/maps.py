# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps: created, opened, and their entries."""

from __future__ import annotations

import ctypes
import errno as errnos
from typing import Any, Iterator, List, Optional, Tuple

from .binding import NAME_BYTES, U32, BpfError, Fd, call, fields
from .constants import (
    MAP_ANY,
    MAP_TYPE_LRU_PERCPU_HASH,
    MAP_TYPE_PERCPU_ARRAY,
    MAP_TYPE_PERCPU_CGROUP_STORAGE,
    MAP_TYPE_PERCPU_HASH,
)
from .inspect import get, kind, map_by_id, map_info, num_possible_cpus

_PERCPU_MAPS = (MAP_TYPE_PERCPU_HASH, MAP_TYPE_PERCPU_ARRAY, MAP_TYPE_LRU_PERCPU_HASH, MAP_TYPE_PERCPU_CGROUP_STORAGE)


class _MapCreateOpts(ctypes.Structure):
    _fields_ = fields(
        "size sz",
        "u32 btf_fd btf_key_type_id btf_value_type_id btf_vmlinux_value_type_id inner_map_fd map_flags",
    )


def create_map(map_type: int, name: str, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> Fd:
    """A new map, without BTF; names are cut to what the kernel keeps."""
    opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags)
    short = name.encode()[: NAME_BYTES - 1]
    return Fd(
        call(
            f"creating the map {name}",
            "bpf_map_create",
            map_type,
            short,
            key_size,
            value_size,
            max_entries,
            ctypes.byref(opts),
        )
    )


class Map:
    """An open map. Keys and values are bytes of exactly its sizes; a per-CPU value is one padded slot per possible CPU.

    :param descriptor: owned from now on.
    """

    def __init__(self, descriptor: Fd) -> None:
        self._fd = descriptor
        self.info = map_info(descriptor)
        self.value_bytes = self.info.value_size
        if self.info.type in _PERCPU_MAPS:
            self.value_bytes = (self.info.value_size + 7) // 8 * 8 * num_possible_cpus()

    @classmethod
    def open_pin(cls, path: str) -> Map:
        """:raises BpfError: nothing, or no map, is pinned there."""
        descriptor = get(path)
        found = kind(descriptor)
        if found != "map":
            raise BpfError(f"{path} is a pin of a {found}, not of a map", errnos.EINVAL)
        return cls(descriptor)

    @classmethod
    def open_id(cls, number: int) -> Map:
        """:raises BpfError: no map has this id (ENOENT)."""
        return cls(map_by_id(number))

    def fileno(self) -> int:
        return self._fd.fileno()

    def close(self) -> None:
        self._fd.close()

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _key(self, key: bytes) -> bytes:
        # The C side reads key_size bytes whatever is passed.
        if len(key) != self.info.key_size:
            raise ValueError(f"map {self.info.name} has keys of {self.info.key_size} bytes, not {len(key)}")
        return key

    def lookup(self, key: bytes) -> Optional[bytes]:
        """The key's value, or None if the map has no such key."""
        value = ctypes.create_string_buffer(self.value_bytes)
        try:
            call(f"reading from map {self.info.name}", "bpf_map_lookup_elem", self.fileno(), self._key(key), value)
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = MAP_ANY) -> None:
        """Write one entry; ``MAP_NOEXIST`` and ``MAP_EXIST`` make it conditional (EEXIST, ENOENT)."""
        if len(value) != self.value_bytes:
            raise ValueError(f"map {self.info.name} has values of {self.value_bytes} bytes, not {len(value)}")
        call(f"writing to map {self.info.name}", "bpf_map_update_elem", self.fileno(), self._key(key), value, flags)

    def delete(self, key: bytes) -> bool:
        """Remove one entry; False if there was none."""
        try:
            call(f"deleting from map {self.info.name}", "bpf_map_delete_elem", self.fileno(), self._key(key))
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return False
            raise
        return True

    def next_key(self, key: Optional[bytes]) -> Optional[bytes]:
        """The key after this one (None: the first), or None at the end. A key that is gone starts over."""
        following = ctypes.create_string_buffer(self.info.key_size)
        start = None if key is None else self._key(key)
        try:
            call(f"listing map {self.info.name}", "bpf_map_get_next_key", self.fileno(), start, following)
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return None
            raise
        return following.raw

    def keys(self) -> Iterator[bytes]:
        """Every key; while others write, some may be missed or come twice."""
        key = None
        # Deletions can restart the walk: no more turns than twice the size.
        for _turn in range(2 * self.info.max_entries + 1):
            key = self.next_key(key)
            if key is None:
                return
            yield key

    def items(self) -> Iterator[Tuple[bytes, bytes]]:
        """Every key with its value, in batches if the kernel has them for this type (hash maps: Linux 5.6)."""
        try:
            batch = self._batch(None, 4096)
        except BpfError as error:
            if error.errno not in (errnos.EINVAL, errnos.ENOTSUP, 524):  # 524: the kernel's own ENOTSUPP
                raise
            for key in self.keys():
                value = self.lookup(key)
                if value is not None:
                    yield key, value
            return
        while True:
            entries, position = batch
            yield from entries
            if position is None:
                return
            batch = self._batch(position, 4096)

    def _batch(self, position: Any, room: int) -> Tuple[List[Tuple[bytes, bytes]], Any]:
        """Up to ``room`` entries from ``position`` (None: the start), and the next position, None at the end."""
        key_size, value_size = self.info.key_size, self.value_bytes
        while True:
            following: Optional[ctypes.Array[ctypes.c_char]] = ctypes.create_string_buffer(max(key_size, 8))
            keys, values = ctypes.create_string_buffer(key_size * room), ctypes.create_string_buffer(value_size * room)
            count = U32(room)
            try:
                call(
                    f"reading map {self.info.name}",
                    "bpf_map_lookup_batch",
                    self.fileno(),
                    position,
                    following,
                    keys,
                    values,
                    ctypes.byref(count),
                    None,
                )
            except BpfError as error:
                if error.errno == errnos.ENOSPC and room < 1 << 24:  # one bucket has more entries than there is room
                    room *= 4
                    continue
                if error.errno != errnos.ENOENT:
                    raise
                following = None
            raw_keys, raw_values = keys.raw, values.raw
            entries = [
                (raw_keys[i * key_size : (i + 1) * key_size], raw_values[i * value_size : (i + 1) * value_size])
                for i in range(count.value)
            ]
            return entries, following
