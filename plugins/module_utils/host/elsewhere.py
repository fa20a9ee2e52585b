# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work, and sockets, of a process in another cgroup, while this one stays where it is."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import threading
import uuid
from typing import Any, Callable, Iterator, Tuple

from ..errors import SockredirError

_NUMBER = array.array("i", [0])


@contextlib.contextmanager
def beneath(cgroup: str) -> Iterator[str]:
    """A cgroup of this run's own below another, which may have controllers; removed at the end.

    :param cgroup: str, absolute path.
    :raises SockredirError: it cannot be created.
    """
    own = os.path.join(cgroup, f"sockredir-proof-{os.getpid()}-{uuid.uuid4().hex[:6]}")
    try:
        os.mkdir(own)
    except OSError as error:
        raise SockredirError(f"cannot create a cgroup in {cgroup}: {error.strerror}", "enable again") from error
    try:
        yield own
    finally:
        _remove(own)


def _remove(cgroup: str) -> None:
    # The kernel lets go of an ended process a moment after its parent knows.
    for _attempt in range(100):
        try:
            os.rmdir(cgroup)
            return
        except OSError:
            threading.Event().wait(0.02)


def answer(cgroup: str, work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a process in the cgroup, by way of JSON.

    :raises SockredirError: as ``work`` did, or it failed otherwise.
    """
    reader, writer = os.pipe()

    def tell() -> None:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            json.dump(_outcome(cgroup, work), pipe)

    child = _forked(tell)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    told = json.loads(text or '{"error": ["the process ended without a result", ""]}')
    if "error" in told:
        raise SockredirError(*told["error"])
    return told["done"]


def _outcome(cgroup: str, work: Callable[[], Any]) -> Any:
    try:
        _enter(cgroup)
        return {"done": work()}
    except SockredirError as error:
        return {"error": [error.message, error.cure]}
    except OSError as error:
        return {"error": [f"the transfer failed: {error}", ""]}


def socket_of(cgroup: str, make: Callable[[], Tuple[socket.socket, int]]) -> Tuple[socket.socket, int]:
    """A socket that a process in the cgroup has made, and a number that it found with it, such as an errno.

    :raises SockredirError: the process could not make it.
    """
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with mine, theirs:
        child = _forked(lambda: _hand_over(theirs, cgroup, make))
        theirs.close()
        text, ancillary, _flags, _address = mine.recvmsg(4096, socket.CMSG_SPACE(_NUMBER.itemsize))
        os.waitpid(child, 0)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            number = array.array("i")
            number.frombytes(data[: number.itemsize])
            return socket.socket(fileno=number[0]), int(text)
    raise SockredirError(text.decode("utf-8", "replace") or "the process ended without a socket")


def _hand_over(channel: socket.socket, cgroup: str, make: Callable[[], Tuple[socket.socket, int]]) -> None:
    try:
        _enter(cgroup)
        made, number = make()
    except OSError as error:
        channel.send(str(error).encode())
        return
    rights = array.array("i", [made.fileno()])
    channel.sendmsg([str(number).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _enter(cgroup: str) -> None:
    with open(os.path.join(cgroup, "cgroup.procs"), "w", encoding="ascii") as processes:
        processes.write(str(os.getpid()))


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child
