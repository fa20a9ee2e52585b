# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to name servers go to the proxy, and each answer comes from the one that was asked."""

from __future__ import annotations

import errno
import selectors
import socket
import threading

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End

DNS = 53
FIRST, SECOND, THIRD = "203.0.113.53", "203.0.113.54", "203.0.113.55"
SIX = "2001:db8::53"


class Answerer:
    """Answers each datagram with the number of its own address, and what it got."""

    def __init__(self, *addresses: str) -> None:
        self._sockets = [self._bound(address) for address in addresses]
        self.ends = tuple(End(*each.getsockname()[:2]) for each in self._sockets)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @staticmethod
    def _bound(address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 0))
        return sock

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in (*self._sockets, self._woken):
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select(60):
                    if key.fileobj is self._woken:
                        return
                    question, client = key.fileobj.recvfrom(1000)
                    place = self._sockets.index(key.fileobj)
                    key.fileobj.sendto(b"%d:%s" % (place, question), client)

    def __enter__(self):
        return self

    def __exit__(self, *_exception: object) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for each in (*self._sockets, self._wake, self._woken):
            each.close()


@pytest.fixture
def proxy(intercepted):
    with intercepted.as_proxy():
        own = intercepted.keep(Answerer("127.0.0.1", "127.0.0.2", "::1"))
    intercepted.write(intercepted.rule(9, dns=own.ends))
    return own


@pytest.fixture
def client(intercepted, proxy):
    """A UDP socket whose datagrams are sent from the programs' cgroup."""

    def make(family=socket.AF_INET):
        return Client(intercepted, intercepted.socket(family, socket.SOCK_DGRAM))

    return make


class Client:
    def __init__(self, intercepted, sock: socket.socket) -> None:
        self.intercepted, self.sock = intercepted, sock

    def send(self, question: bytes, *address) -> None:
        with self.intercepted.as_app():
            self.sock.sendto(question, address) if address else self.sock.send(question)

    def receive(self):
        """The answer and whom it is from."""
        answer, sender = self.sock.recvfrom(1000)
        return answer, sender[:2]


def test_a_connected_socket(intercepted, client):
    for address, place in ((FIRST, 0), (SECOND, 0)):
        one = client()
        with intercepted.as_app():
            one.sock.connect((address, DNS))
        assert one.sock.getpeername() == (address, DNS)
        one.send(b"q")
        assert one.receive() == (b"%d:q" % place, (address, DNS))


def test_one_socket_with_two_name_servers(client):
    """The answers come in another order than the questions, and twice."""
    one = client()
    for _turn in range(3):
        one.send(b"a", FIRST, DNS)
        one.send(b"b", SECOND, DNS)
        found = {one.receive(), one.receive()}
        assert found == {(b"0:a", (FIRST, DNS)), (b"1:b", (SECOND, DNS))}


@pytest.mark.parametrize(
    ("address", "place", "family"), [(SIX, 2, socket.AF_INET6), (f"::ffff:{FIRST}", 0, socket.AF_INET6)]
)
def test_ipv6_and_v4_mapped(intercepted, client, address, place, family):
    one = client(family)
    one.send(b"q", address, DNS)
    assert one.receive() == (b"%d:q" % place, (address, DNS))
    connected = client(family)
    with intercepted.as_app():
        connected.sock.connect((address, DNS))
    connected.send(b"q")
    assert connected.receive() == (b"%d:q" % place, (address, DNS))
    assert connected.sock.getpeername()[:2] == (address, DNS)


def test_one_more_name_server_than_the_proxy_has_addresses_is_asked_itself(intercepted, client, proxy):
    server = intercepted.keep(Answerer("127.0.0.77"))
    intercepted.write(intercepted.rule(9, dns=proxy.ends, cidrs=("127.0.0.64/26", "203.0.113.0/24")))
    one = client()
    one.send(b"a", FIRST, DNS)
    one.send(b"b", SECOND, DNS)
    assert {one.receive()[1], one.receive()[1]} == {(FIRST, DNS), (SECOND, DNS)}
    with intercepted.as_app():  # nothing listens there, so the error shows that it went there
        one.sock.sendto(b"c", ("127.0.0.77", DNS))
    counts = intercepted.counts(1)
    assert (counts["dns"], counts["dns_passed"]) == (2, 1)
    assert server.ends


def test_other_ports_and_other_programs_are_left_alone(intercepted, client):
    server = intercepted.keep(Answerer("127.0.0.77"))
    one = client()
    one.send(b"q", "127.0.0.77", server.ends[0].port)
    assert one.receive() == (b"0:q", tuple(server.ends[0]))
    assert intercepted.counts()["dns"] == 0


def test_the_proxy_asks_name_servers_itself_and_not_its_own_address(intercepted, proxy):
    with intercepted.as_proxy():
        sock = intercepted.keep(socket.socket(type=socket.SOCK_DGRAM))
        with pytest.raises(OSError) as refused:
            sock.sendto(b"q", proxy.ends[0])
        assert refused.value.errno == errno.EPERM
        assert sock.connect_ex(proxy.ends[1]) == errno.EPERM
    assert intercepted.counts(1)["looped"] == 2
