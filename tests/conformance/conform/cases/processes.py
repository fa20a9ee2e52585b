# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets shared among processes: fork, descriptors passed on, exec, dup."""

import array
import os
import signal
import socket
import sys
import time

from ..app import Process, pattern, read_all, read_exactly, readable
from ..case import ALL, BOTH, case


@case(ALL)
def forked_server(net, log):
    """A server that forks per connection and closes its own copy."""
    listener = net.listen()
    children = []
    for index in range(8):
        client = net.connect(listener)
        server = listener.accept()[0]

        def serve(sock=server, other=client):
            other.close()
            data = read_all(sock)
            sock.sendall(data[::-1])

        children.append(Process(serve))
        server.close()
        client.sendall(pattern(30000, index))
        client.shutdown(socket.SHUT_WR)
        log(f"client read {index}", read_all(client) == pattern(30000, index)[::-1])
    log("exits", [child.exit_code() for child in children])


@case(BOTH)
def shared_by_parent_and_child(net, log):
    """Parent and child write the same socket in turn; the end comes only after both have closed it."""
    client, server = net.pair()
    go_reader, go_writer = os.pipe()
    client.sendall(b"parent ")

    def child():
        client.sendall(b"child ")
        os.read(go_reader, 1)
        client.sendall(b"late child")

    process = Process(child)
    log("read", read_exactly(server, 13))
    client.sendall(b"parent again ")
    client.close()
    log("read more", read_exactly(server, 13))
    log("no end yet", not readable(server, 0.2))
    os.write(go_writer, b"x")
    log("read last", read_all(server))
    log("exit", process.exit_code())


@case(BOTH)
def both_processes_write(net, log):
    """Four processes write one socket at once: every byte arrives, each one's in its own order."""
    client, server = net.pair()
    writers, total = 4, net.scaled(2 << 20) & ~63
    streams = [bytes(index << 6 | place & 63 for place in range(64)) * (total // 64) for index in range(writers)]

    def write(index):
        for offset in range(0, total, 70000 - 9000 * index):
            client.sendall(streams[index][offset : offset + 70000 - 9000 * index])

    processes = [Process(write, index) for index in range(writers)]
    client.close()
    received = read_all(server)
    log("exits", [process.exit_code() for process in processes])
    for index in range(writers):
        others = bytes(value for value in range(256) if value >> 6 != index)
        log(f"writer {index} in order", received.translate(None, others) == streams[index])


@case(BOTH)
def passed_descriptor(net, log):
    """An accepted socket passed to another process over a Unix socket, with data already waiting on it."""
    client, server = net.pair()
    ours, theirs = socket.socketpair(socket.AF_UNIX)

    def worker():
        _data, control, _flags, _address = theirs.recvmsg(1, 100)
        sock = socket.socket(fileno=array.array("i", control[0][2][:4])[0])
        sock.sendall(b"worker got " + read_exactly(sock, 5))
        sock.sendall(pattern(200000))
        sock.close()

    process = Process(worker)
    client.sendall(b"12345")
    log("waiting", readable(server))
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [server.fileno()]))])
    server.close()
    log("client read", read_exactly(client, 16))
    log("client read more", read_exactly(client, 200000) == pattern(200000))
    log("exit", process.exit_code())
    log("end", client.recv(1))


@case(BOTH)
def inherited_by_exec(net, log):
    """A program started with the socket as its standard input and output, as inetd does."""
    client, server = net.pair()
    program = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d[::-1])"

    def child():
        client.close()
        os.dup2(server.fileno(), 0)
        os.dup2(server.fileno(), 1)
        os.execv(sys.executable, [sys.executable, "-c", program])

    process = Process(child)
    server.close()
    client.sendall(pattern(300000))
    client.shutdown(socket.SHUT_WR)
    log("read", read_all(client) == pattern(300000)[::-1])
    log("exit", process.exit_code())


@case(BOTH)
def duplicated(net, log):
    """A duplicate descriptor keeps the connection when the first is closed."""
    client, server = net.pair()
    copy = client.dup()
    client.sendall(b"first ")
    client.close()
    copy.sendall(b"second")
    log("read", read_exactly(server, 12))
    log("no end yet", not readable(server, 0.1))
    server.sendall(b"back")
    log("copy read", copy.recv(10))
    copy.close()
    log("end", server.recv(1))


@case(BOTH)
def one_end_outside(net, log):
    """A client in no accelerated cgroup talks to a server in one: plain TCP, in both directions."""
    listener = net.listen()

    def client():
        net.leave()
        sock = net.connect(listener)
        sock.sendall(pattern(100000))
        code = read_exactly(sock, 100000) != pattern(100000)[::-1]
        sock.close()
        os._exit(int(code))

    process = Process(client)
    server = listener.accept()[0]
    server.sendall(read_exactly(server, 100000)[::-1])
    log("server end", server.recv(1))
    log("exit", process.exit_code())
    client, server = net.pair()
    client.sendall(b"both inside")
    log("read", server.recv(100))


@case(BOTH)
def reader_killed_in_recv(net, log):
    """One of two processes that read a socket is killed inside recv; the other goes on."""
    client, server = net.pair()
    client.sendall(b"x")
    log("read", server.recv(1))
    victim = Process(server.recv, 1)
    time.sleep(0.1)
    os.kill(victim.pid, signal.SIGKILL)
    log("exit", victim.exit_code())
    client.sendall(b"for the other")
    log("read again", server.recv(100))


@case(BOTH)
def writer_killed_in_send(net, log):
    """A process is killed inside a blocked send: the reader gets an unbroken beginning of the stream."""
    client, server = net.pair()
    block = pattern(1 << 20)

    def write():
        while True:
            client.sendall(block)

    victim = Process(write)
    client.close()
    log("something arrives", readable(server))
    time.sleep(0.3)
    os.kill(victim.pid, signal.SIGKILL)
    log("exit", victim.exit_code())
    received = 0
    right = True
    try:
        while True:
            part = read_exactly(server, len(block))
            if not part:
                break
            right = right and part == block[: len(part)]
            received += len(part)
    except ConnectionResetError:
        pass
    log("something came", received > 0)
    log("in order", right)
