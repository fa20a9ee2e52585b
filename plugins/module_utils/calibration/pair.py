# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two processes in a cgroup, connected to each other, that transfer bytes on command.

The writer makes the connections, its child accepts and reads. Both end by themselves when the process that commands
them is gone, and no call on a socket lasts longer than :data:`_PATIENCE`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import statistics
import struct
import sys
import time
from typing import BinaryIO, Callable, Dict, Iterator, List, NamedTuple, Tuple

from ..errors import SockredirError
from ..host.proof import bytes_sent_by_tcp

_OPEN, _STREAM, _REQUESTS = range(3)
#: What, bytes a message and number of connections (which name the connections too), messages on each.
_ORDER = struct.Struct("=IIII")
_Name = Tuple[int, int]
#: Nanoseconds, bytes that went by TCP, microseconds of a request.
_ANSWER = struct.Struct("=QQd")
_MOMENT = struct.Struct("=Q")
_PATIENCE = 3  # seconds
_LIMIT = 10  # seconds, for a whole transfer
_READ_AT_ONCE = 256 << 10


class Transfer(NamedTuple):
    """:ivar seconds: from the first byte written until the last one is read.
    :ivar by_tcp: bytes that the writer has handed to TCP.
    :ivar request_us: median of what a request took, divided by the number of connections; 0 for a stream.
    """

    seconds: float
    by_tcp: int
    request_us: float


class _Pipes(NamedTuple):
    """One end of two pipes to another process."""

    tell: BinaryIO
    hear: BinaryIO

    def close(self) -> None:
        self.tell.close()
        self.hear.close()


class Pair:
    """The two processes, as seen by the one that commands them; a context manager."""

    def __init__(self, cgroup: str) -> None:
        """:param cgroup: str, where both go.

        :raises OSError: no process can be made.
        """
        self._pid, self._pipes = _fork(lambda pipes: _write(cgroup, pipes))

    def stream(self, size: int, count: int) -> Transfer:
        """Send ``count`` messages of ``size`` bytes.

        :raises SockredirError: it failed.
        """
        return self._tell(_STREAM, size, 1, count)

    def requests(self, size: int, count: int, connections: int = 1) -> Transfer:
        """Send a message on each connection, wait for one as long on each, and again.

        :raises SockredirError: it failed.
        """
        return self._tell(_REQUESTS, size, connections, count)

    def _tell(self, *order: int) -> Transfer:
        _say(self._pipes, _ORDER.pack(*order))
        answered = select.select([self._pipes.hear], [], [], _LIMIT)[0]
        raw = _hear(self._pipes, _ANSWER.size) if answered else b""
        if not raw:
            raise SockredirError("a transfer between two processes failed")
        nanoseconds, by_tcp, request_us = _ANSWER.unpack(raw)
        return Transfer(nanoseconds / 1e9, by_tcp, request_us)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, kind: object, *_exception: object) -> None:
        if kind:
            os.kill(self._pid, signal.SIGKILL)  # it may be in the middle of a transfer
        self._pipes.close()
        os.waitpid(self._pid, 0)


def _fork(work: Callable[[_Pipes], None]) -> Tuple[int, _Pipes]:
    """A child that does ``work`` and ends, and the pipes to it."""
    (orders, tell), (hear, answers) = os.pipe(), os.pipe()
    pid = os.fork()
    ours, theirs = ((tell, hear), (orders, answers)) if pid else ((answers, orders), (hear, tell))
    for number in theirs:
        os.close(number)
    pipes = _Pipes(os.fdopen(ours[0], "wb", 0), os.fdopen(ours[1], "rb", 0))
    if pid:
        return pid, pipes
    code = 1
    try:
        work(pipes)
        code = 0
    except (OSError, SockredirError) as error:
        sys.stderr.write(f"sockredir: {error}\n")
    finally:
        os._exit(code)  # nothing of the parent's is to be flushed or cleaned up twice


def _say(pipes: _Pipes, message: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has ended, so that its answer is missing too
        pipes.tell.write(message)


def _hear(pipes: _Pipes, size: int) -> bytes:
    """A message; empty if the other process has ended. They are shorter than what a pipe writes in one piece."""
    raw = pipes.hear.read(size) or b""
    return raw if len(raw) == size else b""


def _write(cgroup: str, pipes: _Pipes) -> None:
    with open(os.path.join(cgroup, "cgroup.procs"), "w", encoding="ascii") as processes:
        processes.write("0")  # the writer itself
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        address = listener.getsockname()
        pid, reader = _fork(lambda orders: _read(listener, pipes, orders))
    known: Dict[_Name, List[socket.socket]] = {}
    while True:
        raw = _hear(pipes, _ORDER.size)
        if not raw:
            break
        what, size, connections, count = _ORDER.unpack(raw)
        name = size, connections
        if name not in known:
            known[name] = [_connect(address, name, reader) for _each in range(connections)]
        _say(pipes, _transfer(known[name], reader, what, size, count))
    reader.close()
    os.waitpid(pid, 0)


def _connect(address: Tuple[str, int], name: _Name, reader: _Pipes) -> socket.socket:
    connection = _patient(socket.socket())
    connection.connect(address)
    # The first message decides, so that the other end has to be in the map by then.
    _say(reader, _ORDER.pack(_OPEN, *name, 0))
    _moment(reader)
    return connection


def _patient(connection: socket.socket) -> socket.socket:
    """With the kernel's timeouts: Python's own would make the socket non-blocking."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", _PATIENCE, 0))
    return connection


def _moment(reader: _Pipes) -> int:
    raw = _hear(reader, _MOMENT.size)
    if not raw:
        raise SockredirError("the reader of a test transfer has ended")
    return _MOMENT.unpack(raw)[0]


def _transfer(own: List[socket.socket], reader: _Pipes, what: int, size: int, count: int) -> bytes:
    message, before = bytes(size), bytes_sent_by_tcp(own[0])
    _say(reader, _ORDER.pack(what, size, len(own), count))
    begin = time.monotonic_ns()
    request_us = 0.0
    if what == _STREAM:
        for _each in range(count):
            own[0].sendall(message)
    else:
        with _on_cpu(0):
            request_us = _ask(own, message, count)
    took = _moment(reader) - begin
    return _ANSWER.pack(max(took, 1), bytes_sent_by_tcp(own[0]) - before, request_us)


def _ask(own: List[socket.socket], message: bytes, count: int) -> float:
    """On each connection before any answer is read; the median of what one request of them takes, in microseconds."""
    buffer, took = bytearray(len(message)), []
    for _each in range(count):
        begin = time.monotonic_ns()
        for connection in own:
            connection.sendall(message)
        for connection in own:
            _receive(connection, buffer, len(message))
        took.append(time.monotonic_ns() - begin)
    return statistics.median(took) / len(own) / 1000


def _read(listener: socket.socket, others: _Pipes, orders: _Pipes) -> None:
    others.close()  # or the writer would not see its parent end
    known: Dict[_Name, List[socket.socket]] = {}
    buffer = bytearray(_READ_AT_ONCE)
    while True:
        raw = _hear(orders, _ORDER.size)
        if not raw:
            return
        what, size, connections, count = _ORDER.unpack(raw)
        own = known.setdefault((size, connections), [])
        if what == _OPEN:
            own.append(_patient(listener.accept()[0]))
        elif what == _STREAM:
            _receive(own[0], buffer, size * count)
        else:
            with _on_cpu(-1):
                _answer(own, buffer, size, count)
        _say(orders, _MOMENT.pack(time.monotonic_ns()))


@contextlib.contextmanager
def _on_cpu(index: int) -> Iterator[None]:
    """On one of the CPUs that this process may use: sharing one or not makes more difference than what is measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[index]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _answer(own: List[socket.socket], buffer: bytearray, size: int, count: int) -> None:
    if len(own) > 1:
        _echo_where_asked(own, buffer, size, count)
        return
    for _each in range(count):
        _echo(own[0], buffer, size)


def _echo(connection: socket.socket, buffer: bytearray, size: int) -> None:
    _receive(connection, buffer, size)
    connection.sendall(buffer[:size])


def _echo_where_asked(own: List[socket.socket], buffer: bytearray, size: int, count: int) -> None:
    """As servers do that wait for all of their connections at once."""
    left = count * len(own)
    by_number = {connection.fileno(): connection for connection in own}
    with select.epoll() as waiting:
        for number in by_number:
            waiting.register(number, select.EPOLLIN)
        while left:
            ready = waiting.poll(_PATIENCE)
            if not ready:
                raise SockredirError("no request came in a test transfer")
            for number, _events in ready:
                _echo(by_number[number], buffer, size)
            left -= len(ready)


def _receive(connection: socket.socket, buffer: bytearray, size: int) -> None:
    view, left, until = memoryview(buffer), size, time.monotonic() + _PATIENCE
    while left:
        try:
            got = connection.recv_into(view[: min(left, len(buffer))])
        except BlockingIOError:
            # Not only at the limit: a mapped socket says so whenever anything but data wakes it.
            if time.monotonic() > until:
                raise
            continue
        if not got:
            raise SockredirError("the connection of a test transfer has ended")
        left -= got
