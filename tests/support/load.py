# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A steady load of local TCP connections in a cgroup, every byte of which is checked.

Run as a script it is the load itself: it reads commands from standard input, one JSON value a line, and answers each.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

_PATTERN = random.Random(7).randbytes(1_000_003)
_TIMEOUT = 30.0


def pattern(start: int, size: int) -> bytes:
    """The bytes of every stream from a position on; no short period."""
    start %= len(_PATTERN)
    data = _PATTERN[start : start + size]
    while len(data) < size:
        data += _PATTERN[: size - len(data)]
    return data


class Load:
    """Threads that talk to each other until told to stop."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.counts: Dict[str, int] = {}
        self.failures: List[str] = []
        self._lock = threading.Lock()
        self._threads: List[threading.Thread] = []
        self._listeners: List[socket.socket] = []

    def start(self) -> None:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            name = "v4" if family == socket.AF_INET else "v6"
            port = self._serve(family, address, self._answer)
            self._run(f"requests {name}", self._requests, (address, port), 50)
            self._run(f"connections {name}", self._requests, (address, port), 1)
        port = self._serve(socket.AF_INET6, "::", self._swallow, dual=True)
        self._run("stream large", self._stream, ("127.0.0.1", port), 65536, 0.004)
        self._run("stream small", self._stream, ("127.0.0.1", port), 300, 0.002)
        port = self._serve(socket.AF_INET, "127.0.0.1", self._pour)
        self._run("stream back", self._drink, ("127.0.0.1", port))

    def stop(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT)
            if thread.is_alive():
                self._failed(thread.name, "it hangs")
        for listener in self._listeners:
            listener.close()

    def report(self) -> Dict[str, Any]:
        with self._lock:
            return {"counts": dict(self.counts), "failures": list(self.failures)}

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] = self.counts.get(name, 0) + 1

    def _failed(self, name: str, problem: object) -> None:
        with self._lock:
            self.failures.append(f"{name}: {problem}")

    def _run(self, name: str, work: Any, *arguments: Any) -> None:
        def run() -> None:
            try:
                work(name, *arguments)
            except Exception as error:
                self._failed(name, repr(error))

        self._threads.append(threading.Thread(target=run, name=name, daemon=True))
        self._threads[-1].start()

    def _serve(self, family: int, address: str, work: Any, dual: bool = False) -> int:
        listener = socket.create_server((address, 0), family=family, dualstack_ipv6=dual, backlog=64)
        self._listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _peer = listener.accept()
                except OSError:
                    return
                connection.settimeout(_TIMEOUT)
                self._run("server", lambda _name, connection: work(connection), connection)

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    # Requests: a length and as many bytes there, the same bytes backwards.

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while True:
                head = _exactly(connection, 4, may_end=True)
                if not head:
                    return
                connection.sendall(_exactly(connection, struct.unpack("=I", head)[0])[::-1])

    def _requests(self, name: str, address: tuple, each: int) -> None:
        dice = random.Random(name)
        while not self.stopping.is_set():
            with socket.create_connection(address, _TIMEOUT) as connection:
                for _number in range(each):
                    data = pattern(dice.randrange(1 << 30), dice.choice((1, 64, 500, 4096, 20000)))
                    connection.sendall(struct.pack("=I", len(data)) + data)
                    if _exactly(connection, len(data)) != data[::-1]:
                        self._failed(name, "wrong bytes")
                    self._count(name)
            time.sleep(0.002)

    # Streams: one connection for the whole time, checked byte by byte, and in length at the end.

    def _stream(self, name: str, address: tuple, size: int, pause: float) -> None:
        with socket.create_connection(address, _TIMEOUT) as connection:
            sent = self._send(name, connection, size, pause)
            connection.shutdown(socket.SHUT_WR)
            received = struct.unpack("=Q", _exactly(connection, 8))[0]
            if received != sent:
                self._failed(name, f"{sent} bytes sent, {received} received")

    def _swallow(self, connection: socket.socket) -> None:
        with connection:
            connection.sendall(struct.pack("=Q", self._check("stream", connection)))

    def _pour(self, connection: socket.socket) -> None:
        with connection:
            sent = self._send("stream back", connection, 32768, 0.004)
            connection.shutdown(socket.SHUT_WR)
            received = struct.unpack("=Q", _exactly(connection, 8))[0]
            if received != sent:
                self._failed("stream back", f"{sent} bytes sent, {received} received")

    def _drink(self, name: str, address: tuple) -> None:
        with socket.create_connection(address, _TIMEOUT) as connection:
            connection.sendall(struct.pack("=Q", self._check(name, connection)))

    def _send(self, name: str, connection: socket.socket, size: int, pause: float) -> int:
        sent = 0
        while not self.stopping.is_set():
            connection.sendall(pattern(sent, size))
            sent += size
            self._count(name)
            time.sleep(pause)
        return sent

    def _check(self, name: str, connection: socket.socket) -> int:
        received = 0
        while True:
            data = connection.recv(1 << 18)
            if not data:
                return received
            if data != pattern(received, len(data)):
                self._failed(name, f"wrong bytes after {received}")
                return received
            received += len(data)


def _exactly(connection: socket.socket, size: int, may_end: bool = False) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            if may_end and not data:
                return b""
            raise EOFError(f"connection ended after {len(data)} of {size} bytes")
        data += more
    return data


class Running:
    """The load in its process."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def ask(self, command: str) -> Dict[str, Any]:
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the load's process has died"
        return json.loads(line)

    def works(self, more: int = 5) -> None:
        """Wait until each kind of traffic has got on by so much; nothing may have failed."""
        start = self.ask("report")
        deadline = time.monotonic() + 60
        while True:
            now = self.ask("report")
            assert now["failures"] == [], now["failures"]
            if all(now["counts"].get(name, 0) >= start["counts"].get(name, 0) + more for name in NAMES):
                return
            assert time.monotonic() < deadline, (start, now)
            time.sleep(0.05)

    def stop(self) -> Dict[str, Any]:
        """End all connections in good order; what has been done and what has failed."""
        return self.ask("stop")


NAMES = (
    "requests v4",
    "connections v4",
    "requests v6",
    "connections v6",
    "stream large",
    "stream small",
    "stream back",
)


@contextlib.contextmanager
def load(cgroup: Path) -> Iterator[Running]:
    """Run the load in a cgroup; it ends with the block."""
    start = f'echo $$ > {cgroup}/cgroup.procs; exec "$@"'
    process = subprocess.Popen(
        ["sh", "-c", start, "sh", sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Running(process)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main() -> None:
    running = Load()
    running.start()
    for line in sys.stdin:
        if json.loads(line) == "stop":
            running.stop()
        print(json.dumps(running.report()), flush=True)


if __name__ == "__main__":
    main()
