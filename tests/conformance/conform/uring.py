# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small io_uring, through its system calls and shared rings; one thread uses it."""

import ctypes
import mmap
import os
import socket
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_SETUP, _ENTER = 425, 426
_SQ_RING, _CQ_RING, _SQES = 0, 0x8000000, 0x10000000
_GETEVENTS = 1
_POLL_ADD, _SEND, _RECV, _SEND_ZC = 6, 26, 27, 47
_SQE_SIZE, _CQE_SIZE = 64, 16


def _call(number, *arguments):
    result = _LIBC.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def missing():
    """Why io_uring cannot be used here, or None."""
    try:
        Ring().close()
    except OSError as error:
        return f"io_uring cannot be used here ({error.strerror})"
    return None


def without_zero_copy():
    """Why io_uring cannot send without a copy here (it can from Linux 6.0 on), or None."""
    if missing():
        return missing()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, Ring() as ring:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        ring.send_zero_copy(sock, b"x", 1)
        result = ring.wait(1)[0][1]
    return None if result == 1 else f"io_uring cannot send without a copy here ({os.strerror(-result)})"


class Ring:
    """Submissions are queued by send, recv and poll, handed over by submit, and collected by wait."""

    def __init__(self, entries=16):
        parameters = ctypes.create_string_buffer(120)
        self._fd = _call(_SETUP, entries, parameters)
        fields = struct.unpack("30I", parameters.raw)
        self._sq = dict(zip(("head", "tail", "mask", "entries", "flags", "dropped", "array"), fields[10:17]))
        self._cq = dict(zip(("head", "tail", "mask", "entries", "overflow", "cqes"), fields[20:26]))
        self._sq_ring = mmap.mmap(self._fd, self._sq["array"] + fields[0] * 4, offset=_SQ_RING)
        self._cq_ring = mmap.mmap(self._fd, self._cq["cqes"] + fields[1] * _CQE_SIZE, offset=_CQ_RING)
        self._sqes = mmap.mmap(self._fd, fields[0] * _SQE_SIZE, offset=_SQES)
        self._queued = 0
        self._kept = {}

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def close(self):
        """Close the ring; operations under way are cancelled."""
        os.close(self._fd)

    @staticmethod
    def _word(ring, offset, value=None):
        if value is None:
            return struct.unpack_from("I", ring, offset)[0]
        struct.pack_into("I", ring, offset, value & 0xFFFFFFFF)
        return value

    def _queue(self, operation, sock, address, length, flags, tag):
        tail = self._word(self._sq_ring, self._sq["tail"])
        index = tail & self._word(self._sq_ring, self._sq["mask"])
        entry = struct.pack("BBHiQQIIQ24x", operation, 0, 0, sock.fileno(), 0, address, length, flags, tag)
        self._sqes[index * _SQE_SIZE : (index + 1) * _SQE_SIZE] = entry
        self._word(self._sq_ring, self._sq["array"] + 4 * index, index)
        self._word(self._sq_ring, self._sq["tail"], tail + 1)
        self._queued += 1

    def send(self, sock, data, tag, flags=0):
        """Queue a send of ``data``."""
        kept = ctypes.create_string_buffer(bytes(data), len(data))
        self._kept[tag] = kept
        self._queue(_SEND, sock, ctypes.addressof(kept), len(data), flags, tag)

    def send_zero_copy(self, sock, data, tag):
        """Queue a send of ``data`` itself: two completions, the second when the kernel has no use for it any more."""
        kept = ctypes.create_string_buffer(bytes(data), len(data))
        self._kept[tag] = kept
        self._queue(_SEND_ZC, sock, ctypes.addressof(kept), len(data), 0, tag)

    def recv(self, sock, buffer, tag, flags=0):
        """Queue a recv into the bytearray ``buffer``."""
        kept = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        self._kept[tag] = kept
        self._queue(_RECV, sock, ctypes.addressof(kept), len(buffer), flags, tag)

    def poll(self, sock, tag, events=1):
        """Queue a wait for poll events (POLLIN by default)."""
        self._queue(_POLL_ADD, sock, 0, 0, events, tag)

    def submit(self, wait=0):
        """Hand the queue to the kernel; return after ``wait`` completions."""
        _call(_ENTER, self._fd, self._queued, wait, _GETEVENTS if wait else 0, None, 0)
        self._queued = 0

    def wait(self, count):
        """Submit what is queued and return ``count`` completions as [(tag, result or minus errno)]."""
        done = []
        while len(done) < count:
            self.submit(1)
            head = self._word(self._cq_ring, self._cq["head"])
            while head != self._word(self._cq_ring, self._cq["tail"]):
                offset = self._cq["cqes"] + (head & self._word(self._cq_ring, self._cq["mask"])) * _CQE_SIZE
                tag, result, _flags = struct.unpack_from("QiI", self._cq_ring, offset)
                done.append((tag, result))
                head += 1
            self._word(self._cq_ring, self._cq["head"], head)
        for tag, _result in done:
            self._kept.pop(tag, None)
        return done
