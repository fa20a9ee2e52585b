# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways a connection comes about, and who speaks first."""

import errno
import os
import socket
import time

from .. import libc
from ..app import Task, pattern, read_all, read_exactly, readable, reset
from ..case import ALL, BOTH, case


def _sysctl(name, value):
    with open(f"/proc/sys/net/ipv4/{name}", "w") as setting:
        setting.write(str(value))


@case(ALL)
def client_first(net, log):
    """The client sends at once after connect; the server answers."""
    client, server = net.pair()
    log.call("client sends", client.send, b"hello")
    log("server read", server.recv(100))
    log.call("server sends", server.send, b"welcome")
    log("client read", client.recv(100))


@case(ALL)
def server_first(net, log):
    """The server sends a banner at once after accept, before the client says anything."""
    listener = net.listen()

    def serve():
        server = listener.accept()[0]
        server.sendall(b"220 ready\r\n")
        server.sendall(read_exactly(server, 6)[::-1])
        return read_all(server)

    for index in range(20):
        serving = Task(serve)
        client = net.connect(listener)
        log(f"banner {index}", read_exactly(client, 11))
        client.sendall(b"abcdef")
        log(f"echo {index}", read_exactly(client, 6))
        client.close()
        log(f"end {index}", serving.result())


@case(ALL)
def both_first(net, log):
    """Both ends send at once; neither waits for the other."""
    listener = net.listen()
    for index in range(50):
        accepting = Task(lambda: listener.accept()[0])
        client = net.connect(listener)
        client.sendall(b"C" * 3000)
        server = accepting.result()
        server.sendall(b"S" * 3000)
        log(f"server read {index}", read_exactly(server, 3000) == b"C" * 3000)
        log(f"client read {index}", read_exactly(client, 3000) == b"S" * 3000)
        client.close()
        server.close()


@case(ALL)
def data_before_accept(net, log):
    """The client sends, and even closes, before the server accepts."""
    listener = net.listen()
    for name, size in (("small", 10), ("big", 100000)):
        client = net.connect(listener)
        client.sendall(pattern(size))
        client.sendall(b"more")
        client.shutdown(socket.SHUT_WR)
        server = listener.accept()[0]
        log(f"{name}: server read", read_all(server))
        server.sendall(b"answer")
        server.close()
        log(f"{name}: client read", read_all(client))
    client = net.connect(listener)
    client.sendall(b"last words")
    client.close()
    server = listener.accept()[0]
    log("closed: server read", read_all(server))


@case(BOTH)
def defer_accept(net, log):
    """TCP_DEFER_ACCEPT: the connection is accepted when its first data come."""
    sock = net.server_socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    listener = net.listen(sock=sock)
    for index in range(5):
        client = net.connect(listener)
        log(f"acceptable without data {index}", readable(listener, 0.1))
        client.sendall(b"first")
        server = listener.accept()[0]
        client.sendall(b"second")
        log(f"server read {index}", read_exactly(server, 11))
        server.sendall(pattern(50000))
        log(f"client read {index}", read_exactly(client, 50000))


@case(BOTH)
def defer_accept_backlog_full(net, log):
    """A client sends while the server has no room for its socket yet; others came in by SYN cookie."""
    sock = net.server_socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    listener = net.listen(backlog=1, sock=sock)
    clients = [net.connect(listener) for _index in range(3)]
    for index, client in enumerate(clients):
        client.sendall(b"%d" % index * 1000)
    read = []
    for _index in clients:
        server = listener.accept()[0]
        server.sendall(b"ok")
        read.append(read_exactly(server, 1000))
    log("server read", sorted(read))
    log("clients read", [read_exactly(client, 2) for client in clients])


def _fast_open_listener(net):
    _sysctl("tcp_fastopen", 3)
    sock = net.server_socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    return net.listen(sock=sock)


@case(BOTH)
def fast_open(net, log):
    """TCP Fast Open by sendto: from the second connection on, data travel in the SYN."""
    listener = _fast_open_listener(net)
    for index in range(4):
        client = net.client_socket()
        log.call(f"sendto {index}", client.sendto, b"early data", libc.MSG_FASTOPEN, net.address(listener))
        server = listener.accept()[0]
        log(f"server read {index}", read_exactly(server, 10))
        server.sendall(b"answer")
        log(f"client read {index}", read_exactly(client, 6))
        client.sendall(pattern(100000))
        log(f"server read more {index}", read_exactly(server, 100000))
        client.close()
        log(f"server end {index}", server.recv(10))
        server.close()


@case(BOTH)
def fast_open_server_answers_first(net, log):
    """Fast Open: the server answers the data of the SYN before the handshake is over."""
    listener = _fast_open_listener(net)
    for index in range(4):
        client = net.client_socket()
        client.setsockopt(socket.IPPROTO_TCP, libc.TCP_FASTOPEN_CONNECT, 1)
        log.call(f"connect {index}", client.connect, net.address(listener))
        serving = Task(lambda: listener.accept()[0])
        client.sendall(b"question")
        server = serving.result()
        server.sendall(b"answer" * 1000)
        log(f"server read {index}", read_exactly(server, 8))
        log(f"client read {index}", read_exactly(client, 6000))
        client.sendall(b"x" * 70000)
        log(f"server read more {index}", read_exactly(server, 70000) == b"x" * 70000)
        client.close()
        server.close()


@case(BOTH)
def syn_cookies(net, log):
    """Every connection made from a SYN cookie."""
    _sysctl("tcp_syncookies", 2)
    listener = net.listen()
    for index in range(5):
        client, server = net.pair(listener=listener)
        client.sendall(b"ping")
        log(f"server read {index}", read_exactly(server, 4))
        server.sendall(pattern(70000))
        log(f"client read {index}", read_exactly(client, 70000))
        client.close()
        log(f"server end {index}", server.recv(1))
        server.close()


@case(BOTH)
def backlog_full(net, log):
    """More clients than the backlog holds: the rest are established when the server accepts."""
    listener = net.listen(backlog=0)
    first = net.connect(listener)
    first.sendall(b"first")
    second = net.client_socket()
    second.setblocking(False)
    log("second connects", second.connect_ex(net.address(listener)) == errno.EINPROGRESS)
    log("first is served", listener.accept()[0].recv(10))
    third = listener.accept()[0]
    second.setblocking(True)
    second.sendall(b"second")
    log("second is served", third.recv(10))
    third.sendall(b"fine")
    log("second read", second.recv(10))


@case(BOTH)
def reuse_port(net, log):
    """Two listeners on one port with SO_REUSEPORT: each connection's bytes reach the socket that accepted it."""
    listeners = []
    port = 0
    for _index in range(2):
        sock = net.server_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listeners.append(net.listen(port=port, sock=sock))
        port = listeners[0].getsockname()[1]
    clients = [net.connect(listeners[0]) for _index in range(20)]
    for client in clients:
        client.sendall(b"%05d" % client.getsockname()[1])
    accepted = 0
    right = 0
    for listener in listeners:
        while readable(listener, 0.1):
            server, peer = listener.accept()
            accepted += 1
            right += read_exactly(server, 5) == b"%05d" % peer[1]
            server.sendall(b"%05d" % peer[1])
    log("accepted", accepted)
    log("server read right", right)
    log("client read right", sum(read_exactly(client, 5) == b"%05d" % client.getsockname()[1] for client in clients))


@case(BOTH, redirects=None)
def refused(net, log):
    """Nobody listens."""
    listener = net.listen()
    address = net.address(listener)
    listener.close()
    client = net.client_socket()
    log("connect", errno.errorcode.get(client.connect_ex(address)))
    log.call("send", client.send, b"x", socket.MSG_NOSIGNAL)


@case(BOTH)
def non_blocking_connect(net, log):
    """connect on a non-blocking socket, then writable, then SO_ERROR 0, then data."""
    listener = net.listen()
    client = net.client_socket()
    client.setblocking(False)
    log("connect", errno.errorcode.get(client.connect_ex(net.address(listener)), 0))
    server = listener.accept()[0]
    log("SO_ERROR", client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    log("connect again", errno.errorcode.get(client.connect_ex(net.address(listener)), 0))
    log("send", client.send(b"data"))
    log("server read", server.recv(100))


@case(BOTH, redirects=None)
def self_connect(net, log):
    """A socket connected to itself (a simultaneous open) reads what it wrote."""
    sock = net.client_socket()
    sock.bind((net.family.client_host, 0))
    log.call("connect", sock.connect, sock.getsockname())
    log("send", sock.send(b"echo"))
    log("read", sock.recv(100))
    sock.sendall(pattern(30000))
    log("read more", read_exactly(sock, 30000))
    sock.shutdown(socket.SHUT_WR)
    log("end", sock.recv(10))


@case(BOTH)
def same_ports_again(net, log):
    """The same four-tuple again and again, ended by RST: each connection sees its own bytes only."""
    listener = net.listen()
    host = net.family.client_host
    port = 0
    right = 0
    for index in range(net.scaled(300, 50)):
        client = net.client_socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((host, port))
        port = client.getsockname()[1]
        client, server = net.pair(client, listener)
        message = b"%06d" % index
        client.sendall(message)
        if index % 3:
            server.sendall(message[::-1])
        right += read_exactly(server, 6) == message
        if index % 3 == 1:
            right += read_exactly(client, 6) == message[::-1]
        else:
            right += 1  # left unread, or nothing sent
        reset(client)
        if index % 2:
            reset(server)
        else:
            server.close()
    log("right", right == 2 * net.scaled(300, 50))


@case(BOTH)
def disconnect_and_connect_elsewhere(net, log):
    """A socket dissolved with AF_UNSPEC and connected to another server."""
    listeners = [net.listen(), net.listen()]
    client = net.client_socket()
    for index in range(6):
        client, server = net.pair(client, listeners[index % 2])
        client.sendall(b"to %d" % index)
        log(f"server read {index}", server.recv(100))
        server.sendall(b"from %d" % index)
        log(f"client read {index}", client.recv(100))
        log.call(f"disconnect {index}", libc.disconnect, client)
        log.call(f"server end {index}", server.recv, 100)
        server.close()


@case(BOTH)
def listener_closed_with_children(net, log):
    """The server closes its listener while connections wait in it: clients see a RST."""
    listener = net.listen()
    clients = [net.connect(listener) for _index in range(4)]
    for client in clients[:2]:
        client.sendall(b"unread")
    listener.close()
    for index, client in enumerate(clients):
        log(f"readable {index}", readable(client))
        log.call(f"client read {index}", client.recv, 10)


@case(BOTH)
def inherited_options(net, log):
    """Options set on the listener hold on accepted sockets; buffer sizes can be set on live ones."""
    sock = net.server_socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client, server = net.pair(listener=net.listen(sock=sock))
    log("nodelay", server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    log("keepalive", server.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
    client.sendall(b"x")
    log("server read", server.recv(1))
    for size in (10000, 1000000):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        writer = Task(client.sendall, pattern(300000))
        log(f"server read with buffers of {size}", read_exactly(server, 300000))
        writer.result()
    log("family", server.family == net.family.server_family)
    log("peer name is client's port", server.getpeername()[1] == client.getsockname()[1])


@case(BOTH)
def many_listeners_addresses(net, log):
    """Connections among several local addresses and ports, all live at once."""
    hosts = [f"127.0.0.{index}" for index in range(1, 5)] if net.family.name == "ipv4" else ["::1"]
    pairs = []
    for host in hosts:
        for _index in range(5):
            sock = net.server_socket()
            sock.bind((host, 0))
            sock.listen(8)
            client = net.client_socket()
            client.bind((hosts[0], 0))
            client.connect(sock.getsockname()[:2])
            pairs.append((client, sock.accept()[0]))
    for index, (client, _server) in enumerate(pairs):
        client.sendall(pattern(2000, index))
    for _client, server in pairs:
        server.sendall(read_exactly(server, 2000)[::-1])
    log(
        "right",
        sum(read_exactly(client, 2000) == pattern(2000, index)[::-1] for index, (client, _server) in enumerate(pairs)),
    )


@case(BOTH)
def server_sends_while_client_connects(net, log):
    """The server's first bytes race with the client's end being recorded, in two processes; a hundred times."""
    listener = net.listen()
    rounds = net.scaled(150, 50)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for index in range(rounds):
                server = listener.accept()[0]
                server.send(b"a%03d" % index)
                server.send(b"b%03d" % index)
                server.sendall(pattern(3000, index % 4))
                server.close()
            code = 0
        finally:
            os._exit(code)
    right = 0
    for index in range(rounds):
        client = net.client_socket()
        client.connect(net.address(listener))
        if index % 3 == 0:
            time.sleep(0.001)
        right += read_all(client) == b"a%03d" % index + b"b%03d" % index + pattern(3000, index % 4)
        client.close()
    log("right", right == rounds)
    log("server exit", os.waitpid(pid, 0)[1])
