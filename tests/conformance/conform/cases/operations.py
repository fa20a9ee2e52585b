# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators do while applications run: modes, attach and detach, and namespaces side by side."""

import os
import socket
import time

from .. import libc
from ..app import Mismatch, Process, Task, pattern, read_all, read_exactly, readable
from ..case import BOTH, case


class _Traffic:
    """Connections that exchange all the time and check every byte."""

    def __init__(self, net):
        self._net = net
        self._listener = net.listen()
        self._stop = False
        self._tasks = []

    def _exchange(self, client, server, seed):
        count = 0
        while not (self._stop and count):
            for size in (10, 3000, 70000):
                message = pattern(size, seed)
                client.sendall(message)
                if read_exactly(server, size) != message:
                    raise Mismatch("server read wrong bytes")
                server.sendall(message)
                if read_exactly(client, size) != message:
                    raise Mismatch("client read wrong bytes")
                count += 1
        return count

    def _stream(self, client, server):
        message = pattern(65536, 3)
        reader = Task(self._read_stream, server, message)
        client.sendall(message)
        while not self._stop:
            client.sendall(message)
        client.close()
        return reader.result()

    @staticmethod
    def _read_stream(sock, message):
        count = 0
        while True:
            part = read_exactly(sock, len(message))
            if not part:
                return count
            if part != message:
                raise Mismatch(f"stream is wrong after {count} messages")
            count += 1

    def more(self):
        """Two exchanging connections and a stream more."""
        for seed in range(2):
            self._tasks.append(Task(self._exchange, *(self._net.pair(listener=self._listener) + (seed,))))
        self._tasks.append(Task(self._stream, *self._net.pair(listener=self._listener)))
        time.sleep(0.3)

    def end(self):
        """Stop, and return whether every connection got on without an error."""
        self._stop = True
        return all(task.result() > 0 for task in self._tasks)


@case(BOTH, bound=90, in_states=False)
def modes_under_traffic(net, log):
    """observe, drain and enforce in turn under traffic; connections made in each of them."""
    traffic = _Traffic(net)
    try:
        for mode in ("enforce", "observe", "enforce", "drain", "enforce"):
            net.operate(f"mode {mode}")
            traffic.more()
    finally:
        net.operate("mode enforce")
    log("all right", traffic.end())


@case(BOTH, bound=90, load={})
def attached_and_detached_under_traffic(net, log):
    """Programs detached, attached, drained and detached under traffic."""
    net.operate("detach")
    traffic = _Traffic(net)
    traffic.more()
    for request in ("attach", "mode drain", "detach", "mode enforce", "attach"):
        net.operate(request)
        traffic.more()
    log("all right", traffic.end())


@case(bound=60, load={"settings": {"budget": 1 << 20}})
def tiny_budget(net, log):
    """A budget of one MiB: everything still works, the rest goes over TCP."""
    pairs = [net.pair() for _index in range(8)]
    data = pattern(net.scaled(8 << 20))
    writers = [Task(client.sendall, data) for client, _server in pairs]
    readers = [Task(read_exactly, server, len(data)) for _client, server in pairs]
    log("right", sum(reader.result() == data for reader in readers))
    for writer in writers:
        writer.result()


@case(redirects=None, load={"settings": {"budget": 64 << 10}})
def smallest_budget(net, log):
    """The smallest budget there is."""
    client, server = net.pair()
    client.sendall(b"question")
    log("read", server.recv(100))
    writer = Task(server.sendall, pattern(1 << 20))
    log("read more", read_exactly(client, 1 << 20))
    writer.result()


def _same_tuple(net, server_port, client_port):
    """A connection with exactly these ports."""
    listener = net.listen(port=server_port)
    client = net.client_socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind((net.family.client_host, client_port))
    return net.pair(client, listener) + (listener,)


@case(BOTH)
def two_namespaces(net, log):
    """The same four-tuple in two network namespaces, live and half-closed: no byte crosses."""
    for turn, ending in enumerate(("live", "client closed", "server closed", "client half-closed")):
        client, server, listener = _same_tuple(net, 23456 + turn, 34567 + turn)
        client.sendall(b"first namespace")
        log(f"{ending}: server read", server.recv(100))
        server.sendall(b"answer")
        log(f"{ending}: client read", client.recv(100))
        if ending == "client closed":
            client.close()
        if ending == "server closed":
            server.close()
        if ending == "client half-closed":
            client.shutdown(socket.SHUT_WR)
        report, result = os.pipe()

        def other(turn=turn, result=result):
            libc.unshare_network()
            client, server, _listener = _same_tuple(net, 23456 + turn, 34567 + turn)
            client.sendall(b"second namespace")
            read = read_exactly(server, 16)
            server.sendall(pattern(50000))
            read += read_exactly(client, 50000)
            client.close()
            read += read_all(server)
            os.write(result, b"right" if read == b"second namespace" + pattern(50000) else b"wrong")

        log(f"{ending}: other's exit", Process(other).exit_code())
        os.close(result)
        log(f"{ending}: other", os.read(report, 100))
        for name, sock in (("client", client), ("server", server)):
            if sock.fileno() >= 0:
                log(
                    f"{ending}: {name} sees nothing or its end",
                    sock.recv(100, socket.MSG_DONTWAIT) if readable(sock, 0.1) else b"",
                )
                sock.close()
        listener.close()


@case(BOTH)
def namespace_gone(net, log):
    """A process in another namespace ends, its connection half closed; the same tuple works here."""
    ready, told = os.pipe()

    def other():
        libc.unshare_network()
        client, server, _listener = _same_tuple(net, 23500, 34600)
        client.sendall(b"unread there")
        client.shutdown(socket.SHUT_WR)
        os.write(told, b"x")
        readable(server, 10)

    log("exit", Process(other).exit_code())
    log("other was ready", os.read(ready, 1))
    client, server, _listener = _same_tuple(net, 23500, 34600)
    server.sendall(b"hello")
    log("client read", client.recv(100))
    client.sendall(b"there")
    log("server read", server.recv(100))
