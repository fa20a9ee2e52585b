# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which connections are redirected, that nothing of them is lost or mixed up, and what remains of them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading

import pytest
from support.datapath import read_exactly

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
TCP_DEFER_ACCEPT = 9


def random_bytes(size: int) -> bytes:
    return os.urandom(size)


@pytest.mark.parametrize(
    ("client", "server"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("127.0.0.1", "::"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::1", "::"),
    ],
    ids=["ipv4", "other-loopback", "ipv6", "v4-mapped-server", "v4-mapped-client", "dual-stack"],
)
def test_both_directions_are_redirected(lab, client, server):
    one, other = lab.pair(client, server)
    sent = random_bytes(200_000)
    for writer, reader in ((one, other), (other, one)):
        thread = threading.Thread(target=writer.sendall, args=(sent,))
        thread.start()
        assert read_exactly(reader, len(sent)) == sent
        thread.join()
    counters = lab.redirection.counters()
    assert counters["redirected"].bytes == 2 * len(sent)
    assert {side.state for side in lab.redirection.flow(other.getsockname()[1])} == {"redirected"}
    one.close()
    other.close()
    lab.redirection.wait_until_empty()


def test_a_client_outside_the_cgroup_is_left_alone(lab):
    listener = lab.listener()
    client = lab.keep(socket.create_connection(listener.getsockname()))
    server = lab.keep(listener.accept()[0])
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"
    server.sendall(b"world")
    assert read_exactly(client, 5) == b"world"
    assert lab.redirection.events("redirected") == 0
    assert lab.redirection.events("skip_alone") == 1
    assert lab.redirection.flows() == []


def test_a_server_outside_the_cgroup_lets_the_client_go(lab):
    listener = lab.keep(socket.create_server(("127.0.0.1", 0)))
    client = lab.connect(listener)
    server = lab.keep(listener.accept()[0])
    for _turn in range(3):
        client.sendall(b"hello")
        assert read_exactly(server, 5) == b"hello"
        server.sendall(b"world")
        assert read_exactly(client, 5) == b"world"
    assert lab.redirection.events("redirected") == 0
    assert lab.redirection.events("socket_left") == 1
    assert lab.redirection.peers() == 0


def test_bytes_sent_by_tcp_are_not_overtaken(lab):
    """The server is established by the client's first bytes, which TCP carries; the next ones may not overtake them."""
    listener = lab.listener()
    listener.setsockopt(socket.IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)
    client = lab.connect(listener)
    client.sendall(b"first ")
    server = lab.keep(listener.accept()[0])
    client.sendall(b"second ")
    client.sendall(b"third")
    assert read_exactly(server, 18) == b"first second third"
    assert lab.redirection.events("redirected") == 0
    server.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"
    assert lab.redirection.events("redirected") == 1


def test_half_closed_connections_still_deliver(lab):
    client, server = lab.pair()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_exactly(server, 8) == b"question"
    assert server.recv(1) == b""
    answer = random_bytes(300_000)
    thread = threading.Thread(target=lambda: (server.sendall(answer), server.shutdown(socket.SHUT_WR)))
    thread.start()
    assert read_exactly(client, len(answer)) == answer
    assert client.recv(1) == b""
    thread.join()


@contextlib.contextmanager
def namespace():
    """Runs the calling thread in a network namespace of its own; use it in a thread that ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    yield


def in_namespace(work):
    """Call it in a thread with a network namespace of its own and return what it returns."""
    results = []

    def run():
        with namespace():
            results.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert results, "failed in its namespace"
    return results[0]


def test_two_namespaces_never_mix(lab):
    """The same addresses and ports twice; the first pair is half closed and its server never reads again."""

    def make():
        with lab.inside():
            listener = lab.keep(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", 21200))
            listener.listen()
            client = lab.keep(socket.socket())
            client.bind(("127.0.0.1", 21201))
            client.connect(("127.0.0.1", 21200))
        return client, lab.keep(listener.accept()[0])

    first_client, first_server = in_namespace(make)
    first_client.sendall(b"one")
    first_client.shutdown(socket.SHUT_WR)
    second_client, second_server = in_namespace(make)
    assert second_client.getsockname() == first_client.getsockname()
    secret = random_bytes(100_000)
    thread = threading.Thread(target=second_client.sendall, args=(secret,))
    thread.start()
    assert read_exactly(second_server, len(secret)) == secret
    thread.join()
    assert read_exactly(first_server, 3) == b"one"
    assert first_server.recv(1) == b""
    second_server.sendall(b"two")
    first_server.sendall(b"six")
    assert read_exactly(second_client, 3) == b"two"
    assert read_exactly(first_client, 3) == b"six"


def test_a_full_map_leaves_connections_to_tcp(lab_with):
    with lab_with(flows=1) as lab:
        pairs = [lab.pair() for _each in range(3)]
        for client, server in pairs:
            client.sendall(b"data")
            assert read_exactly(server, 4) == b"data"
        assert lab.redirection.events("redirected") == 1
        assert lab.redirection.events("skip_full", "skip_alone") == 4
        for client, server in pairs:
            client.close()
            server.close()
        lab.redirection.wait_until_empty()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("end", ["client", "server", "reset", "reset-unread", "never-accepted", "listener-gone"])
def test_no_entry_is_left_however_a_connection_ends(lab, end):
    for _turn in range(50):
        listener = lab.listener()
        client = lab.connect(listener)
        if end not in ("never-accepted", "listener-gone"):
            server = lab.keep(listener.accept()[0])
        client.sendall(b"request")
        if end == "client":
            client.close()
            read_exactly(server, 7)
            server.close()
        elif end == "server":
            server.close()
            client.close()
        elif end == "reset":
            read_exactly(server, 7)
            reset(client)
            server.close()
        elif end == "reset-unread":
            reset(server)
            client.close()
        elif end == "never-accepted":
            client.close()
        listener.close()
        client.close()
    lab.redirection.wait_until_empty()
    counters = lab.redirection.counters()
    assert counters["socket_added"].events == 100
    assert counters["socket_closed"].events + counters["socket_left"].events == 100
    assert counters["flow_opened"].events == counters["flow_closed"].events == 50
