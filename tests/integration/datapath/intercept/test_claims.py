# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No destination is lost, none reaches another connection, and nothing is left behind."""

from __future__ import annotations

import errno
import selectors
import socket
import struct

from support.interception import FAR4, original_dst, told

LINGER_0 = struct.pack("ii", 1, 0)
CONNECTIONS, AT_ONCE, SOURCE_PORTS = 10_000, 200, 400


def test_a_refused_connection_takes_its_claim_along(intercepted):
    """A later client has the same ports, and is not intercepted."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    intercepted.write(intercepted.rule(port))
    client = intercepted.socket()
    client.bind(("127.0.0.1", 0))
    source = client.getsockname()
    with intercepted.as_app():
        assert client.connect_ex((FAR4, 80)) == errno.ECONNREFUSED
    client.close()
    assert intercepted.pending() == 0
    assert intercepted.counts(1)["withdrawn"] == 1
    intercepted.namer(port=port)
    later = intercepted.keep(socket.socket())
    later.bind(source)
    later.connect(("127.0.0.1", port))
    assert told(later)[0] == "-"


def test_a_client_that_gives_up_takes_its_claim_along(intercepted):
    """The listener's queue is full, so that its SYN is not answered."""
    with intercepted.as_proxy():
        full = intercepted.keep(socket.create_server(("127.0.0.1", 0), backlog=0))
    intercepted.write(intercepted.rule(full.getsockname()[1]))
    clients = []
    for _client in range(4):
        client = intercepted.socket()
        client.setblocking(False)
        with intercepted.as_app():
            client.connect_ex((FAR4, 80))
        clients.append(client)
    waiting = intercepted.pending()
    assert waiting
    for client in clients:
        client.close()
    assert intercepted.pending() == 0
    assert intercepted.counts(1)["withdrawn"] == waiting


def test_a_full_map_is_counted_and_the_proxy_gets_no_wrong_answer(intercepted_with):
    with intercepted_with(pending=1) as intercepted:
        with intercepted.as_proxy():
            full = intercepted.keep(socket.create_server(("127.0.0.1", 0), backlog=0))
        intercepted.write(intercepted.rule(full.getsockname()[1]))
        for _client in range(5):
            client = intercepted.socket()
            client.setblocking(False)
            with intercepted.as_app():
                client.connect_ex((FAR4, 80))
        counts = intercepted.counts(1)
        assert counts["lost"] >= 1
        assert counts["rewritten"] == 5
        accepted = intercepted.keep(full.accept()[0])
        assert original_dst(accepted) in (f"{FAR4} 80", "-")


class Crowd:
    """Many clients of one thread, each to a destination of its own; every tenth resets its connection at once."""

    def __init__(self, intercepted) -> None:
        self.intercepted, self.wrong, self.done = intercepted, [], 0
        self.selector = selectors.DefaultSelector()
        self.free = list(range(20_000, 20_000 + SOURCE_PORTS))

    def start(self, number: int) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)  # its port is free at once
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        source = self.free.pop(0)
        client.bind(("127.0.0.1", source))
        asked = (f"198.18.{number >> 8 & 255}.{number & 255}", 1 + number)
        assert client.connect_ex(asked) in (0, errno.EINPROGRESS)
        if number % 10 == 0:
            self.end(client, source)
            return
        self.selector.register(client, selectors.EVENT_READ, (f"{asked[0]} {asked[1]}", source, []))

    def end(self, client: socket.socket, source: int) -> None:
        client.close()
        self.free.append(source)
        self.done += 1

    def turn(self) -> None:
        ready = self.selector.select(20)
        assert ready, f"nothing for 20 s, {self.done} done"
        for key, _events in ready:
            wanted, source, parts = key.data
            part = key.fileobj.recv(1000)
            parts.append(part)
            if not part:
                self.selector.unregister(key.fileobj)
                if b"".join(parts).decode().partition("|")[0] != wanted:
                    self.wrong.append((wanted, parts))
                self.end(key.fileobj, source)


def test_ten_thousand_connections_two_hundred_at_once(intercepted):
    """Source ports are used again, 25 times each, and all go to one listener: only the claims tell them apart."""
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port))
    crowd = Crowd(intercepted)
    with intercepted.as_app():
        for number in range(CONNECTIONS):
            while number - crowd.done >= AT_ONCE:
                crowd.turn()
            crowd.start(number)
        while crowd.done < CONNECTIONS:
            crowd.turn()
    crowd.selector.close()
    assert not crowd.wrong
    counts = intercepted.counts(1)
    assert counts["rewritten"] == CONNECTIONS
    assert counts["claimed"] + counts["withdrawn"] == CONNECTIONS
    assert counts["lost"] == counts["unclaimed"] == 0
    assert intercepted.pending() == 0
