# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A BPF ring buffer read by several readers at once.

The kernel knows one consumer position; whoever consumes a record takes it from everybody else. So each reader here
keeps a position of its own, reads without consuming, and frees space only when the ring is half full, and then what
it had read a look earlier. A reader that is overtaken is told how many bytes it has lost. Waking up goes with
consuming, so readers have to look from time to time. Layout of the memory: Documentation/bpf/ringbuf.rst and
kernel/bpf/ringbuf.c (Linux 5.8).
"""

from __future__ import annotations

import mmap
import struct
from typing import List, NamedTuple

_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=II")
_BUSY = 1 << 31
_DISCARDED = 1 << 30
_MASK = (1 << 64) - 1


class Batch(NamedTuple):
    """What one look gave.

    :param records: list of bytes, in the order in which space was reserved for them.
    :param lost: int, bytes (with headers) that were overwritten before this reader came to them.
    """

    records: List[bytes]
    lost: int


class Reader:
    """One reader of a ring buffer; it sees what is written from now on.

    :param descriptor: int, of the map; may be closed afterwards.
    :param size: int, the map's ``max_entries``, bytes.
    :raises OSError: the memory cannot be mapped.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._consumer = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        # The data is mapped twice in a row, so that a record is never in two pieces.
        self._producer = mmap.mmap(descriptor, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._data = page
        self._at = self._before = self._produced()

    def read(self) -> Batch:
        """Everything written since the last look."""
        lost = self._catch_up()
        before = self._at
        records: List[bytes] = []
        end = self._produced()
        while self._at != end:
            place = self._data + self._at % self._size
            length = _HEADER.unpack_from(self._producer, place)[0]
            if length & _BUSY:
                break
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                records.append(self._producer[place + _HEADER.size : place + _HEADER.size + size])
            self._at = (self._at + _round_up(size)) & _MASK
        if self._consumed_past(self._at):
            return Batch([], lost + self._catch_up())  # overwritten while being read
        self._make_room(end)
        self._before = before
        return Batch(records, lost)

    def close(self) -> None:
        self._producer.close()
        self._consumer.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _produced(self) -> int:
        return _POSITION.unpack_from(self._producer, 0)[0]

    def _consumed(self) -> int:
        return _POSITION.unpack_from(self._consumer, 0)[0]

    def _consumed_past(self, position: int) -> bool:
        return 0 < (self._consumed() - position) & _MASK < 1 << 63

    def _catch_up(self) -> int:
        """Go to the oldest record that is still there; returns how many bytes that skips."""
        consumed = self._consumed()
        lost = (consumed - self._at) & _MASK
        if not 0 < lost < 1 << 63:
            return 0
        self._at = consumed
        return lost

    def _make_room(self, end: int) -> None:
        """Let the kernel overwrite what was read a look ago once the ring is half full, else all that was read."""
        for limit, position in ((self._size // 2, self._before), (self._size * 3 // 4, self._at)):
            consumed = self._consumed()
            if (end - consumed) & _MASK > limit and 0 < (position - consumed) & _MASK < 1 << 63:
                _POSITION.pack_into(self._consumer, 0, position)


def _round_up(size: int) -> int:
    return (size + _HEADER.size + 7) // 8 * 8
