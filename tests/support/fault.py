# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds a thread inside a system call, at the moment it touches one of our pages (userfaultfd).

A receive into such a page stops while the kernel holds the socket's lock, which makes the race window very wide.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import struct

_SYSCALL = {"x86_64": 323, "aarch64": 282, "riscv64": 282, "ppc64le": 364, "s390x": 355}
_API, _REGISTER, _ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
_MISSING = 1


class HeldPage:
    """A page that is not there until :meth:`release`; a context manager.

    :raises OSError: the kernel has no userfaultfd, or not for us.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.syscall(_SYSCALL[os.uname().machine], os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "userfaultfd")
        fcntl.ioctl(self._fd, _API, struct.pack("QQQ", 0xAA, 0, 0))
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self._fd, _REGISTER, struct.pack("QQQQ", self._address, mmap.PAGESIZE, _MISSING, 0))

    def wait(self, seconds: float = 10) -> None:
        """Until somebody is held."""
        assert select.select([self._fd], [], [], seconds)[0], "nobody came to the page"
        os.read(self._fd, 32)

    def release(self) -> None:
        """Let them go on."""
        fcntl.ioctl(self._fd, _ZEROPAGE, struct.pack("QQQq", self._address, mmap.PAGESIZE, 0, 0))

    def __enter__(self) -> HeldPage:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)
