# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real transfer between two sockets of the accelerated cgroup, and by which way its bytes went.

The kernel's own count of what a socket has sent by TCP (``tcpi_bytes_sent``, Linux 4.19, ba113c3aa79a) leaves
redirected bytes out. Unlike the bytes on ``lo`` it does not see what other programs send meanwhile.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import SockredirError
from . import elsewhere

_CHUNK = 64 << 10
_ROUNDS = 16
_PORTS_TRIED = 64
_TIMEOUT = 10.0  # seconds, for each system call on a socket
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_SENT_AND_RETRANS = struct.Struct("=200xQQ")  # of struct tcp_info

#: (lowest, highest), both included.
Range = Tuple[int, int]


class Pair(NamedTuple):
    """A kind of connection: who listens where, and to what the client connects."""

    name: str
    listen_family: int
    listen: str
    family: int
    connect: str


PAIRS = (
    Pair("ipv4", socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
    Pair("ipv6", socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    Pair("v4-mapped", socket.AF_INET6, "::ffff:127.0.0.1", socket.AF_INET, "127.0.0.1"),
)


class NoFreePort(SockredirError):
    """Every accelerated port that was tried is in use, so there is nothing to prove with."""


def transfer(cgroup: str, include: Sequence[Range] = (), exclude: Sequence[Range] = ()) -> List[Dict[str, Any]]:
    """Send bytes there and back over each kind of connection, by a process in the cgroup.

    :param cgroup: str, absolute path; the process gets a cgroup of its own below it, which is removed afterwards.
    :param include: server ports that are accelerated; empty means all.
    :param exclude: server ports that are not, whatever ``include`` says.
    :returns: one entry per kind: ``pair``, ``port``, ``bytes`` sent, ``by_tcp`` of those, ``intact`` (arrived as
        sent); or ``pair`` and ``skipped``, the reason.
    :raises NoFreePort: no port to listen on.
    :raises SockredirError: the cgroup cannot be entered, or a transfer failed.
    """
    with elsewhere.beneath(cgroup) as own:
        told = elsewhere.answer(own, lambda: _transfer_all(include, exclude))
    if "no_free_port" in told:
        raise NoFreePort(*told["no_free_port"])
    return told["pairs"]


def _transfer_all(include: Sequence[Range], exclude: Sequence[Range]) -> Dict[str, Any]:
    try:
        return {"pairs": [_transfer_pair(pair, include, exclude) for pair in PAIRS]}
    except NoFreePort as error:
        return {"no_free_port": [error.message, error.cure]}


def _transfer_pair(pair: Pair, include: Sequence[Range], exclude: Sequence[Range]) -> Dict[str, Any]:
    try:
        listener = _listen(pair, include, exclude)
    except NoFreePort:
        raise
    except OSError as error:
        return {"pair": pair.name, "skipped": f"this host has no {pair.name}: {error.strerror}"}
    with listener:
        return {"pair": pair.name, "port": listener.getsockname()[1], **_connection(pair, listener)}


def _listen(pair: Pair, include: Sequence[Range], exclude: Sequence[Range]) -> socket.socket:
    for port in candidates(include, exclude):
        listener = socket.socket(pair.listen_family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if pair.listen_family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind((pair.listen, port))
            if not _inside(listener.getsockname()[1], exclude):
                listener.listen(1)
                listener.settimeout(_TIMEOUT)
                return listener
        except PermissionError:
            pass
        except OSError as error:
            if error.errno in _NO_FAMILY:
                listener.close()
                raise
        listener.close()
    raise NoFreePort("no accelerated port is free to prove the redirection with", "free one, or widen the ports")


def candidates(include: Sequence[Range], exclude: Sequence[Range]) -> Iterator[int]:
    """Ports to listen on, in the order to try; 0 is one of the kernel's choice.

    :param include: accelerated ranges; empty means all.
    :param exclude: ranges that are not.
    """
    if not include:
        for _attempt in range(_PORTS_TRIED):
            yield 0
        return
    free = [port for low, high in include for port in range(low, high + 1) if port and not _inside(port, exclude)]
    yield from free if len(free) <= _PORTS_TRIED else random.sample(free, _PORTS_TRIED)


def _inside(port: int, ranges: Sequence[Range]) -> bool:
    return any(low <= port <= high for low, high in ranges)


def _connection(pair: Pair, listener: socket.socket) -> Dict[str, Any]:
    """One connection: random bytes to the server and back, in turns."""
    served: Dict[str, Any] = {}
    accepted = threading.Event()
    server = threading.Thread(target=_serve, args=(listener, accepted, served), daemon=True)
    server.start()
    with socket.socket(pair.family, socket.SOCK_STREAM) as client:
        client.settimeout(_TIMEOUT)
        client.connect((pair.connect, listener.getsockname()[1]))
        # The first message decides, so the other end has to be in the map by then.
        accepted.wait(_TIMEOUT)
        intact = True
        for _round in range(_ROUNDS):
            chunk = os.urandom(_CHUNK)
            client.sendall(chunk)
            intact = _receive(client, len(chunk)) == chunk and intact
        by_tcp = bytes_sent_by_tcp(client)
    server.join(2 * _TIMEOUT)
    if "by_tcp" not in served:
        raise SockredirError(
            f"{pair.name}: the server's end of the transfer failed: {served.get('error', 'no answer')}"
        )
    return {"bytes": 2 * _ROUNDS * _CHUNK, "by_tcp": by_tcp + served["by_tcp"], "intact": intact}


def _serve(listener: socket.socket, accepted: threading.Event, served: Dict[str, Any]) -> None:
    try:
        server, _address = listener.accept()
        accepted.set()
        with server:
            server.settimeout(_TIMEOUT)
            for _round in range(_ROUNDS):
                server.sendall(_receive(server, _CHUNK))
            # The client closes once it has all: only then nothing waits to be sent any more, and the count is final.
            server.recv(1)
            served["by_tcp"] = bytes_sent_by_tcp(server)
    except OSError as error:
        served["error"] = str(error)


def _receive(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def bytes_sent_by_tcp(connection: socket.socket) -> int:
    """How many of its bytes a socket has handed to TCP."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SENT_AND_RETRANS.size)
    sent, again = _SENT_AND_RETRANS.unpack(info)
    return sent - again


def judge(mode: str, pairs: Sequence[Dict[str, Any]]) -> Optional[str]:
    """What is wrong with a transfer, in one line; None if it is as the mode says.

    :param mode: str, ``enforce``, ``observe`` or ``drain``.
    :param pairs: what :func:`transfer` returned.
    """
    done = [pair for pair in pairs if "skipped" not in pair]
    damaged = [pair["pair"] for pair in done if not pair["intact"]]
    if damaged:
        return f"bytes did not arrive as they were sent ({', '.join(damaged)})"
    if not done:
        return "no connection could be made at all"
    if mode == "enforce":
        plain = [f"{pair['pair']}: {pair['by_tcp']} of {pair['bytes']} bytes" for pair in done if pair["by_tcp"]]
        return f"bytes went by TCP ({'; '.join(plain)})" if plain else None
    redirected = [pair["pair"] for pair in done if pair["by_tcp"] != pair["bytes"]]
    return f"bytes were redirected although the mode is {mode} ({', '.join(redirected)})" if redirected else None
