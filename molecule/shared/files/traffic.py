# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that must not notice anything, until SIGTERM; then a report in JSON on standard output.

Lasting connections ask and are answered, brief ones ask once, streams carry checksummed bytes one way.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

LASTING, STREAMS = 8, 2
TIMEOUT_S = 60
ASK, STREAM = b"A", b"S"

stop = threading.Event()
lock = threading.Lock()
report = {"requests": 0, "connections": 0, "stream_bytes": 0, "wrong": 0, "failures": []}


def count(**more: int) -> None:
    with lock:
        for name, value in more.items():
            report[name] += value


def read_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(size)
        if not part:
            raise ConnectionError("end of stream in the middle of a message")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve(listener: socket.socket) -> None:
    while True:
        connection, _address = listener.accept()
        threading.Thread(target=guarded, args=(answer, connection), daemon=True).start()


def answer(connection: socket.socket) -> None:
    """The server's side of one connection: a digest for each message, or one for the whole stream."""
    with connection:
        connection.settimeout(TIMEOUT_S)
        kind = read_exactly(connection, 1)
        digest = hashlib.sha256()
        if kind == STREAM:
            for chunk in iter(lambda: connection.recv(1 << 16), b""):
                digest.update(chunk)
            connection.sendall(digest.digest())
            return
        while True:
            try:
                header = connection.recv(1)
            except socket.timeout:
                continue
            if not header:
                return
            (size,) = struct.unpack("!I", header + read_exactly(connection, 3))
            connection.sendall(hashlib.sha256(read_exactly(connection, size)).digest())


def connect(address: tuple, kind: bytes) -> socket.socket:
    connection = socket.create_connection(address, TIMEOUT_S)
    connection.sendall(kind)
    count(connections=1)
    return connection


def ask(connection: socket.socket) -> None:
    payload = random.randbytes(random.choice((64, 4096, 40000)))
    connection.sendall(struct.pack("!I", len(payload)) + payload)
    good = read_exactly(connection, 32) == hashlib.sha256(payload).digest()
    count(requests=1, wrong=not good)


def lasting(address: tuple) -> None:
    with connect(address, ASK) as connection:
        while not stop.is_set():
            ask(connection)
            time.sleep(0.02)


def brief(address: tuple) -> None:
    while not stop.is_set():
        with connect(address, ASK) as connection:
            ask(connection)
        time.sleep(0.05)


def stream(address: tuple) -> None:
    digest = hashlib.sha256()
    with connect(address, STREAM) as connection:
        while not stop.is_set():
            chunk = os.urandom(1 << 16)
            connection.sendall(chunk)
            digest.update(chunk)
            count(stream_bytes=len(chunk))
            time.sleep(0.02)
        connection.shutdown(socket.SHUT_WR)
        count(wrong=read_exactly(connection, 32) != digest.digest())


def guarded(work, *arguments) -> None:
    try:
        work(*arguments)
    except Exception as error:
        with lock:
            report["failures"].append(f"{work.__name__}: {type(error).__name__}: {error}")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_signal: stop.set())
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    workers = [*[lasting] * LASTING, *[stream] * STREAMS, brief]
    threads = [threading.Thread(target=guarded, args=(work, listener.getsockname())) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump(report, sys.stdout)


main()
