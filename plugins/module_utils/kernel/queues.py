# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test how this kernel accounts for a socket in a map: one connection on 127.0.0.1, redirected and not.

A stream verdict (SK_SKB) makes bytes that come by TCP and redirected ones lie in one queue. Kernels without
b40cc5adaa80 take redirected bytes for bytes of TCP's own sequence (``copied_seq``) then, and a reader does not wake up
before TCP has brought as many. And not every kernel counts all that is unread for ioctl(FIONREAD).

Everything is unpinned and goes with its descriptors. The sockets are bound to the device lo, which keeps redirection
that is in use on this host away from them.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
from typing import Any, Callable, Iterator, NamedTuple, Optional, Tuple

from ..errors import SockredirError
from . import libbpf

#: Seconds that loopback traffic may take; only a fault or a firewall makes anybody wait so long.
_PATIENCE = 1.0
_REDIRECTED, _COUNTED = 1000, 100
_KEY, _READER, _WRITER = struct.Struct("=I"), 0, 1
_LOOKUP, _REDIRECT, _INGRESS = 1, 71, 1


class OneQueue(NamedTuple):
    """What a reader with a stream verdict meets after 1000 redirected bytes, all read.

    :ivar ok: whether it is as it should be; None: it could not be tried.
    :ivar unread: what FIONREAD says then, which should be 0.
    :ivar woken: whether a byte by TCP makes it readable; None: not tried, because ``unread`` is wrong.
    :ivar why: why it could not be tried, in one line.
    """

    ok: Optional[bool]
    unread: Optional[int] = None
    woken: Optional[bool] = None
    why: str = ""


class Counted(NamedTuple):
    """What FIONREAD says of 100 bytes by TCP, of 100 redirected, and of both together.

    :ivar ok: whether that is 100, 100 and 200; None: it could not be tried.
    :ivar why: why it could not be tried, in one line.
    """

    ok: Optional[bool]
    tcp: Optional[int] = None
    redirected: Optional[int] = None
    both: Optional[int] = None
    why: str = ""


def one_queue() -> OneQueue:
    """Whether a stream verdict leaves TCP's account of the stream right."""
    return _tried(_one_queue, OneQueue)


def fionread(with_verdict: bool) -> Counted:
    """Whether FIONREAD counts all that is unread.

    :param with_verdict: bool, whether the map has a stream verdict.
    """
    return _tried(lambda: _fionread(with_verdict), Counted)


def _tried(trial: Callable[[], Any], kind: Any) -> Any:
    try:
        return trial()
    except SockredirError as error:
        return kind(None, why=error.message)
    except OSError as error:
        return kind(None, why=f"a connection on 127.0.0.1 failed: {error}")


def _one_queue() -> OneQueue:
    with _connection(with_verdict=True) as pair:
        pair.redirect(_REDIRECTED)
        pair.read(_REDIRECTED)
        unread = pair.unread()
        if unread:
            return OneQueue(False, unread)
        pair.send(1)
        woken = pair.readable()
        return OneQueue(woken, unread, woken)


def _fionread(with_verdict: bool) -> Counted:
    with _connection(with_verdict) as pair:
        pair.send(_COUNTED)
        pair.readable()
        tcp = pair.unread()
        pair.redirect(_COUNTED)
        both = pair.unread()
        pair.read(2 * _COUNTED)
        pair.redirect(_COUNTED)
        redirected = pair.unread()
    return Counted((tcp, redirected, both) == (_COUNTED, _COUNTED, 2 * _COUNTED), tcp, redirected, both)


class _Pair:
    """A connection whose writer redirects while a flag says so."""

    def __init__(self, writer: socket.socket, reader: socket.socket, flag: libbpf.Map) -> None:
        self._writer, self._reader, self._flag = writer, reader, flag

    def send(self, size: int) -> None:
        """By TCP."""
        self._write(size, 0)

    def redirect(self, size: int) -> None:
        self._write(size, 1)

    def _write(self, size: int, redirected: int) -> None:
        self._flag.update(_KEY.pack(0), _KEY.pack(redirected))
        self._writer.sendall(bytes(size))

    def read(self, size: int) -> None:
        while size:
            part = self._reader.recv(size)
            if not part:
                raise OSError(f"it ended {size} bytes early")
            size -= len(part)

    def readable(self) -> bool:
        """Whether a poll says so in time."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        return bool(poll.poll(_PATIENCE * 1000))

    def unread(self) -> int:
        answer: Tuple[int] = struct.unpack("=i", fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4)))
        return answer[0]


@contextlib.contextmanager
def _connection(with_verdict: bool) -> Iterator[_Pair]:
    """A connection with both ends in a map.

    :raises SockredirError: there is no libbpf, or the kernel refuses (no rights, no such map or program).
    :raises OSError: loopback does not work.
    """
    with contextlib.ExitStack() as held:
        flag = held.enter_context(libbpf.Map(libbpf.create_map(libbpf.MAP_TYPE_ARRAY, "probe_flag", 4, 4, 1)))
        peers = held.enter_context(libbpf.Map(libbpf.create_map(libbpf.MAP_TYPE_SOCKHASH, "probe_peers", 4, 8, 2)))
        # No socket may be in the map before it has its programs.
        for program_type, hook, code in _programs(flag, peers, with_verdict):
            program = held.enter_context(libbpf.load_program(program_type, "probe", code, hook))
            libbpf.attach(program, peers.fileno(), hook)
        writer, reader = (held.enter_context(end) for end in _connected())
        for key, end in ((_READER, reader), (_WRITER, writer)):
            peers.update(_KEY.pack(key), struct.pack("=Q", end.fileno()))
        yield _Pair(writer, reader, flag)


def _connected() -> Tuple[socket.socket, socket.socket]:
    """Both ends of a connection within the device lo, the client's first."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(_local_socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = held.enter_context(_local_socket())
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect(listener.getsockname())
        server, peer = listener.accept()
        held.enter_context(server)
        server.settimeout(_PATIENCE)
        if peer != client.getsockname():
            raise OSError(f"somebody else came, from port {peer[1]}")
        listener.close()
        held.pop_all()
    return client, server


def _local_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(_PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    return made


def _programs(flag: libbpf.Map, peers: libbpf.Map, with_verdict: bool) -> Iterator[Tuple[int, int, bytes]]:
    """Type, hook and instructions of what belongs on the map."""
    yield libbpf.PROG_TYPE_SK_MSG, libbpf.ATTACH_SK_MSG_VERDICT, _redirecting(flag.fileno(), peers.fileno())
    if with_verdict:
        yield libbpf.PROG_TYPE_SK_SKB, libbpf.ATTACH_SK_SKB_STREAM_VERDICT, _op(0xB7, 0, value=1) + _op(0x95)


def _redirecting(flag: int, peers: int) -> bytes:
    """To the socket at key 0, past TCP, if the flag is not 0."""
    return b"".join(
        (
            _op(0xBF, 6, 1),  # r6 = the message
            _op(0x62, 10, offset=-4, value=_READER),  # the key, on the stack
            _op(0xBF, 2, 10) + _op(0x07, 2, value=-4),  # r2 = &key
            _map(1, flag) + _op(0x85, value=_LOOKUP),
            _op(0x15, 0, offset=10),  # null: pass
            _op(0x61, 0, 0),  # r0 = the flag
            _op(0x15, 0, offset=8),  # 0: pass
            _op(0xBF, 1, 6) + _map(2, peers),
            _op(0xBF, 3, 10) + _op(0x07, 3, value=-4),  # r3 = &key
            _op(0xB7, 4, value=_INGRESS) + _op(0x85, value=_REDIRECT),
            _op(0x95),
            _op(0xB7, 0, value=1) + _op(0x95),  # pass
        )
    )


def _op(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction; the kernel's Documentation/bpf/standardization/instruction-set.rst has the codes."""
    return struct.pack("=BBhi", code, source << 4 | target, offset, value)


def _map(register: int, descriptor: int) -> bytes:
    """Load a map's address: two instructions, marked as BPF_PSEUDO_MAP_FD."""
    return _op(0x18, register, 1, value=descriptor) + _op(0)
