# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real proxies with the configurations of ``examples/intercept``, but for their ports and directories."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from support.datapath import read_exactly

SIZE = 300_000


class Server:
    """Where programs want to go: it reads a stream and sends it back, or answers one HTTP request."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family)
        self.end = self.listener.getsockname()[:2]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self.listener.accept()[0],), daemon=True).start()

    @staticmethod
    def _answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(60)
            while True:
                part = client.recv(65536)
                if not part:
                    return
                if part.startswith(b"GET "):
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                    return
                client.sendall(part)

    def __enter__(self):
        return self

    def __exit__(self, *_exception: object) -> None:
        self.listener.close()


def carried(intercepted, address: str, server: Server) -> None:
    """A stream there and back, and the client is where it wanted to be."""
    port = server.end[1]
    client = intercepted.connect(address, port)
    assert client.getpeername()[:2] == (address, port)
    sent = os.urandom(SIZE)
    writer = threading.Thread(target=client.sendall, args=(sent,))
    writer.start()
    assert read_exactly(client, SIZE) == sent
    writer.join()
    client.close()


def stream_everywhere(intercepted, addresses) -> None:
    for address in addresses:
        with Server("::1" if address == "::1" else "127.0.0.77") as server:
            carried(intercepted, address, server)
    counts = intercepted.counts(1)
    assert counts["claimed"] == counts["rewritten"] == len(addresses)
    assert counts["looped"] == 0
    assert intercepted.pending() == 0


BOTH = ("127.0.0.77", "::ffff:127.0.0.77", "::1")


def test_haproxy(intercepted, running):
    running.haproxy()
    running.rule(sockname=True)
    stream_everywhere(intercepted, BOTH)
    assert intercepted.counts(1)["answered"] >= 2


def test_nginx_stream(intercepted, running):
    running.nginx()
    running.rule(sockname=True)
    stream_everywhere(intercepted, BOTH)


def test_envoy(intercepted, running):
    running.envoy()
    running.rule()
    stream_everywhere(intercepted, BOTH)
    assert intercepted.counts(1)["answered"] >= 3


def get(intercepted, server: Server) -> bytes:
    client = intercepted.connect(*server.end)
    client.sendall(
        b"GET /x HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n\r\n" % (server.end[0].encode(), server.end[1])
    )
    answer = b""
    while True:
        part = client.recv(65536)
        if not part:
            return answer
        answer += part


def test_squid(intercepted, running):
    running.squid()
    running.rule("127.0.0.1")
    with Server("127.0.0.77") as server:
        answer = get(intercepted, server)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b"Via: " in answer
    assert answer.endswith(b"hello")
    assert intercepted.counts(1)["answered"] >= 1


def test_redsocks_before_squid(intercepted, running):
    running.redsocks()
    running.rule("127.0.0.1")
    stream_everywhere(intercepted, BOTH[:2])
