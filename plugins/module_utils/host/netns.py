# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network namespaces: the one of this process, and those that a file names (namespaces(7))."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from typing import Optional

from ..errors import SockredirError

#: That of whoever looks.
HERE = "/proc/self/ns/net"
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71


def inode(path: str) -> Optional[int]:
    """What tells a network namespace from others, as links to it say; None if there is no such file.

    :raises SockredirError: the file is something else.
    """
    try:
        with open(path, "rb") as file:
            if fcntl.ioctl(file.fileno(), _NS_GET_NSTYPE) != _CLONE_NEWNET:
                raise _other(path)
            return os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _other(path) from error


def _other(path: str) -> SockredirError:
    return SockredirError(
        f"netns: {path} is not a network namespace", f"name its file, such as {HERE} or /run/netns/NAME"
    )


def cookie() -> int:
    """That of this process's network namespace, as bpf_get_netns_cookie() returns it.

    :raises SockredirError: the kernel does not say (before Linux 5.14).
    """
    try:
        with socket.socket() as own:
            return int.from_bytes(own.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    except OSError as error:
        raise SockredirError(f"inbound: the kernel does not tell network namespaces apart: {error}") from error
