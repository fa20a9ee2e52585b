# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that connect all the time, and a server that says whether they came past the proxy."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections import Counter
from typing import Iterator, Tuple

from .interception import told

THREADS = 4
DIRECT = "as asked"


@contextlib.contextmanager
def direct_server(address: str = "127.0.0.77") -> Iterator[Tuple[str, int]]:
    """A server that says so to everybody who comes by himself."""
    with socket.create_server((address, 0), backlog=4096) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as client, contextlib.suppress(OSError):
                        client.sendall(DIRECT.encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)


class Connecting:
    """Programs that connect one time after the other until they are told to stop; what they got, counted."""

    def __init__(self, address: Tuple[str, int]) -> None:
        self.address = address
        self.found: Counter = Counter()
        self._over = threading.Event()
        self._lock = threading.Lock()

    def _one(self) -> str:
        try:
            with socket.create_connection(self.address, timeout=60) as client:
                return told(client)[0]
        except OSError as error:
            return errno.errorcode.get(error.errno, repr(error))

    def _run(self) -> None:
        while not self._over.is_set():
            outcome = self._one()
            with self._lock:
                self.found[outcome] += 1

    def wait_for(self, outcome: str, count: int = 20) -> None:
        """Until it has come so many times more."""
        deadline, wanted = time.monotonic() + 60, self.found[outcome] + count
        while self.found[outcome] < wanted:
            assert time.monotonic() < deadline, (outcome, self.found)
            time.sleep(0.002)

    def __enter__(self) -> Connecting:
        self._threads = [threading.Thread(target=self._run) for _thread in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
