# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of a ring buffer, over a file that a test fills as the kernel would."""

import mmap
import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import ring

SIZE = 4096
PAGE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Kernel:
    """The producer's half: the file has the data twice, as the kernel maps it."""

    def __init__(self, path, start=0):
        self.stream = open(path, "w+b")  # noqa: SIM115
        self.stream.truncate(2 * PAGE + 2 * SIZE)
        self.produced = start
        self._put(0, struct.pack("=Q", start))
        self._put(PAGE, struct.pack("=Q", start))

    def _put(self, place, data):
        self.stream.seek(place)
        self.stream.write(data)
        self.stream.flush()

    @property
    def consumed(self):
        self.stream.seek(0)
        return struct.unpack("=Q", self.stream.read(8))[0]

    def write(self, payload, flags=0):
        """Reserve and commit a record; False if there is no room."""
        length = (len(payload) + 8 + 7) // 8 * 8
        if self.produced + length - self.consumed > SIZE:
            return False
        place = self.produced % SIZE
        record = struct.pack("=II", len(payload) | flags, 0) + payload
        record = record.ljust(length, b"\0")
        for copy in (0, SIZE):
            for index, byte in enumerate(record):
                self._put(2 * PAGE + (place + index) % SIZE + copy, bytes([byte]))
        self.produced += length
        self._put(PAGE, struct.pack("=Q", self.produced))
        return True

    def reader(self):
        return ring.Reader(self.stream.fileno(), SIZE)


@pytest.fixture
def kernel(tmp_path):
    made = Kernel(tmp_path / "ring")
    yield made
    made.stream.close()


def test_two_readers_see_every_record(kernel):
    with kernel.reader() as one, kernel.reader() as two:
        kernel.write(b"first")
        kernel.write(b"second")
        assert one.read() == ring.Batch([b"first", b"second"], 0)
        kernel.write(b"third")
        assert two.read() == ring.Batch([b"first", b"second", b"third"], 0)
        assert one.read() == ring.Batch([b"third"], 0)
        assert kernel.consumed == 0


def test_a_reader_sees_nothing_older_than_itself(kernel):
    kernel.write(b"old")
    with kernel.reader() as reader:
        assert reader.read() == ring.Batch([], 0)


def test_unfinished_records_wait_and_discarded_ones_are_passed_over(kernel):
    with kernel.reader() as reader:
        kernel.write(b"gone", DISCARDED)
        kernel.write(b"here")
        kernel.write(b"soon", BUSY)
        assert reader.read().records == [b"here"]
        assert reader.read().records == []


def test_readers_that_keep_up_lose_nothing_however_much_comes(kernel):
    seen = ([], [])
    with kernel.reader() as one, kernel.reader() as two:
        for number in range(400):
            assert kernel.write(b"%05d" % number + b"x" * 100)
            if number % 5 == 0:
                for reader, records in zip((one, two), seen):
                    batch = reader.read()
                    assert batch.lost == 0
                    records += batch.records
    for records in seen:
        assert [int(record[:5]) for record in records] == list(range(396))


def test_a_reader_left_behind_is_told_so_and_goes_on(kernel):
    with kernel.reader() as quick, kernel.reader() as slow:
        for number in range(100):
            assert kernel.write(b"%03d" % number + b"x" * 101)
            quick.read()
        batch = slow.read()
        assert batch.lost == kernel.consumed > 0
        assert batch.records[-1][:3] == b"099"
        assert len(batch.records) * 112 == kernel.produced - kernel.consumed
        kernel.write(b"next")
        assert slow.read() == ring.Batch([b"next"], 0)


def test_a_burst_that_fills_the_ring_makes_room_at_once(kernel):
    with kernel.reader() as reader:
        while kernel.write(b"x" * 100):
            pass
        assert len(reader.read().records) == SIZE // 112
        assert kernel.write(b"after")
        assert reader.read() == ring.Batch([b"after"], 0)
