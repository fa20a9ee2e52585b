# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP sockets of every network namespace, by their cookie, as sock_diag(7) lists them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
from typing import Dict, Iterator, Optional, Tuple

from . import processes

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_CLONE_NEWNET = 0x40000000
_ANY_STATE = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")
# family, protocol, extensions, padding, states, and an empty struct inet_diag_sockid
_REQUEST = struct.Struct("=BBBBI48x")
# struct inet_diag_msg: the cookie ends its sockid; the inode is its last word
_COOKIE = struct.Struct("=44xQ")
_INODE = struct.Struct("=68xI")
#: struct inet_diag_msg; attributes come after it.
_MESSAGE_BYTES = 72
_ATTRIBUTE = struct.Struct("=HH")
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID
_RECEIVE = 1 << 18
_MAX_NAMESPACES = 4096


def inodes() -> Dict[int, int]:
    """Inode of each TCP socket by cookie, in all network namespaces that a process is in.

    Namespaces that this process may not enter are left out.
    """
    return dict(map(names_of, dump(_ANY_STATE)))


def names_of(message: bytes) -> Tuple[int, int]:
    """Cookie and inode of a dumped socket."""
    return _COOKIE.unpack_from(message)[0], _INODE.unpack_from(message)[0]


def dump(states: int) -> Iterator[bytes]:
    """What the kernel says of each TCP socket in these states: ``struct inet_diag_msg`` and its attributes.

    :param states: int, bits of the states of <net/tcp_states.h>.
    """
    for _name, diag in _each_namespace():
        yield from _both_families(diag, states)


def dump_here(states: int) -> Iterator[bytes]:
    """The same for this network namespace alone; nothing if the kernel has no sock_diag(7)."""
    with contextlib.suppress(OSError), _open_diag() as diag:
        yield from _both_families(diag, states)


def cgroup_of(message: bytes) -> Optional[int]:
    """The id of the cgroup that a dumped socket belongs to; None if the kernel does not say (before Linux 5.8)."""
    at = _MESSAGE_BYTES
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _CGROUP_ID:
            return int.from_bytes(message[at + 4 : at + 12], sys.byteorder)
        at += (length + 3) & ~3
    return None


def _both_families(diag: socket.socket, states: int) -> Iterator[bytes]:
    for family in (socket.AF_INET, socket.AF_INET6):
        yield from _dump(diag, family, states)


def _each_namespace() -> Iterator[Tuple[int, socket.socket]]:
    """A sock_diag socket in each network namespace: a socket stays in the one that it was opened in."""
    with contextlib.suppress(OSError), open("/proc/self/ns/net", "rb") as home:
        own = os.fstat(home.fileno()).st_ino
        spaces = {own: "", **processes.network_namespaces()}
        for number, path in list(spaces.items())[:_MAX_NAMESPACES]:
            with contextlib.suppress(OSError):
                diag = _open_diag() if number == own else _open_elsewhere(path, home.fileno())
                with diag:
                    yield number, diag


def _open_diag() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)


def _open_elsewhere(path: str, home: int) -> socket.socket:
    with open(path, "rb") as there:
        _enter(there.fileno())
    try:
        return _open_diag()
    finally:
        _enter(home)


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _dump(diag: socket.socket, family: int, states: int) -> Iterator[bytes]:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, states)
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, family, 0)
    diag.send(header + body)
    diag.settimeout(5)
    while True:
        answer = diag.recv(_RECEIVE)
        at = 0
        while at + _HEADER.size <= len(answer):
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(answer, at)
            if length < _HEADER.size or kind in (_NLMSG_ERROR, _NLMSG_DONE):
                return
            message = answer[at + _HEADER.size : at + length]
            if sequence == family and len(message) >= _INODE.size:
                yield message
            at += (length + 3) & ~3
