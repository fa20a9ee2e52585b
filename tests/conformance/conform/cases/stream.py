# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order and integrity: every byte arrives once, in order, whatever its way."""

import os
import random
import socket
import time

from ..app import Mismatch, Task, pattern, read_all, read_exactly, readable
from ..case import ALL, BOTH, Limit, case


def _send_in_pieces(sock, data, sizes):
    view = memoryview(data)
    offset = 0
    while offset < len(data):
        size = next(sizes)
        sock.sendall(view[offset : offset + size])
        offset += size


def _sizes(seed, low, high):
    chance = random.Random(seed)
    while True:
        yield int(low * (high / low) ** chance.random())


#: A socket that one thread writes and another reads: a direction that had to turn to TCP shows it now and then.
_BESIDE_A_WRITER = Limit("blocked-recv", {"a blocking recv said EAGAIN": True}, varies=True)


def _both_ways(net, log, total, low, high):
    client, server = net.pair()
    there, back = pattern(total, 1), pattern(total, 2)
    writers = [
        Task(_send_in_pieces, client, there, _sizes(3, low, high)),
        Task(_send_in_pieces, server, back, _sizes(4, low, high)),
    ]
    empty_handed = []
    readers = [Task(read_exactly, sock, total, 1 << 16, empty_handed) for sock in (server, client)]
    log("server read", readers[0].result())
    log("client read", readers[1].result())
    for writer in writers:
        writer.result()
    log("a blocking recv said EAGAIN", bool(empty_handed))


@case(ALL, limit=_BESIDE_A_WRITER)
def random_sizes(net, log):
    """Both directions at once, messages of 1 byte to 256 KiB."""
    _both_ways(net, log, net.scaled(24 << 20), 1, 256 << 10)


@case(BOTH, limit=_BESIDE_A_WRITER)
def small_messages(net, log):
    """Both directions at once, messages of 1 to 2000 bytes."""
    _both_ways(net, log, net.scaled(2 << 20), 1, 2000)


@case(ALL, limit=_BESIDE_A_WRITER)
def big_messages(net, log):
    """Both directions at once, messages of 256 KiB to 4 MiB."""
    _both_ways(net, log, net.scaled(96 << 20), 256 << 10, 4 << 20)


@case(ALL)
def request_response(net, log):
    """Questions and answers of random sizes, each checked."""
    client, server = net.pair()
    chance = random.Random(5)
    plan = [
        (chance.choice((1, 64, 1000, 4096, 20000, 70000)), chance.choice((1, 64, 4096, 65536)))
        for _i in range(net.scaled(3000))
    ]

    def serve():
        for index, (question, answer) in enumerate(plan):
            if read_exactly(server, question) != pattern(question, index % 7):
                raise Mismatch(f"question {index}")
            server.sendall(pattern(answer, index % 5))

    serving = Task(serve)
    for index, (question, answer) in enumerate(plan):
        client.sendall(pattern(question, index % 7))
        if read_exactly(client, answer) != pattern(answer, index % 5):
            raise Mismatch(f"answer {index}")
    serving.result()
    log("exchanges", len(plan))


@case(BOTH, limit=_BESIDE_A_WRITER)
def many_connections(net, log):
    """Many connections at once from several processes' worth of threads, each echoing random sizes."""
    listener = net.listen(256)
    count, total = 48, net.scaled(1 << 20)

    def echo(sock):
        while True:
            data = sock.recv(30000)
            if not data:
                sock.close()
                return
            sock.sendall(data)

    def serve():
        echoes = [Task(echo, listener.accept()[0]) for _index in range(count)]
        for task in echoes:
            task.result()

    def client(index):
        sock = net.connect(listener)
        data = pattern(total, index % 3)
        writer = Task(_send_in_pieces, sock, data, _sizes(index, 1, 100000))
        read = read_exactly(sock, total, empty_handed=empty_handed)
        writer.result()
        sock.shutdown(socket.SHUT_WR)
        # Not a recv that waits: see the limit blocked-recv, closing.half_close_after_answers.
        return read == data and readable(sock) and sock.recv(1) == b""

    empty_handed = []
    serving = Task(serve)
    clients = [Task(client, index) for index in range(count)]
    log("right", sum(task.result() for task in clients))
    serving.result()
    log("a blocking recv said EAGAIN", bool(empty_handed))


@case(BOTH)
def many_writers_one_socket(net, log):
    """Eight threads write one socket: none gets an error and each one's bytes stay in its own order."""
    client, server = net.pair()
    writers, total = 8, net.scaled(1 << 20)
    # Every byte names its writer (3 bits) and its place (5 bits), so any interleaving can be taken apart.
    streams = [bytes(index << 5 | place & 31 for place in range(32)) * (total // 32) for index in range(writers)]

    def write(index):
        _send_in_pieces(client, streams[index], _sizes(index, 1, 90000))

    tasks = [Task(write, index) for index in range(writers)]
    received = read_exactly(server, sum(map(len, streams)))
    for task in tasks:
        task.result()
    for index in range(writers):
        others = bytes(value for value in range(256) if value >> 5 != index)
        log(f"writer {index} in order", received.translate(None, others) == streams[index])


@case(BOTH, limit=Limit("blocked-recv", {"a blocking recv said EAGAIN": True}, varies=True))
def many_readers_one_socket(net, log):
    """Four threads read one socket: together they get every byte once."""
    client, server = net.pair()
    data = bytes(range(256)) * (net.scaled(3 << 20) // 256)
    empty_handed = []

    def read():
        mine = [0] * 256
        while True:
            try:
                part = server.recv(10000)
            except BlockingIOError:
                empty_handed.append(True)
                continue
            if not part:
                return mine
            for value in range(256):
                mine[value] += part.count(value)

    readers = [Task(read) for _index in range(4)]
    _send_in_pieces(client, data, _sizes(1, 1000, 90000))
    client.shutdown(socket.SHUT_WR)
    counts = [sum(column) for column in zip(*[reader.result() for reader in readers])]
    log("each value as often as sent", counts == [len(data) // 256] * 256)
    log("a blocking recv said EAGAIN", bool(empty_handed))


@case(ALL)
def one_way_small_then_talk(net, log):
    """A long run of small messages one way (which goes back to TCP), then questions and answers, then big messages."""
    client, server = net.pair()
    small = pattern(net.scaled(20000, 2000) * 100)
    writer = Task(_send_in_pieces, client, small, iter(lambda: 100, 0))
    log("small run", read_exactly(server, len(small)))
    writer.result()
    for index in range(200):
        client.sendall(pattern(50, index % 3))
        question = read_exactly(server, 50)
        server.sendall(question[::-1])
        if read_exactly(client, 50) != pattern(50, index % 3)[::-1]:
            raise Mismatch(f"answer {index}")
    _finish_big(client, server, log, "client")
    _finish_big(server, client, log, "server")


def _finish_big(source, target, log, name):
    big = pattern(8 << 20)
    writer = Task(source.sendall, big)
    log(f"big from {name}", read_exactly(target, len(big)))
    writer.result()


@case(BOTH)
def way_changes_under_backlog(net, log):
    """Small runs, big messages and answers in turn while the reader is always behind: no byte overtakes another."""
    client, server = net.pair()
    chance = random.Random(9)
    plan = []
    for _round in range(net.scaled(60, 10)):
        plan += [chance.randrange(1, 200)] * chance.randrange(1, 120)
        plan += [chance.randrange(40000, 400000)] * chance.randrange(1, 4)
    total = sum(plan)
    data = pattern(total)
    writer = Task(_send_in_pieces, client, data, iter(plan))
    received = []
    got = 0
    while got < total:
        part = server.recv(chance.choice((1, 100, 5000, 100000, 1000000)))
        if not part:
            break
        got += len(part)
        received.append(part)
        if chance.random() < 0.02:
            time.sleep(0.002)
        if chance.random() < 0.01:
            server.sendall(b"!")  # the other direction decides for itself, at any time
    writer.result()
    log("server read", b"".join(received))


@case(BOTH)
def slow_reader(net, log):
    """A reader that stops for a moment again and again; the writer waits and nothing is lost."""
    client, server = net.pair()
    data = pattern(net.scaled(48 << 20))
    writer = Task(client.sendall, data)
    parts, got = [], 0
    while got < len(data):
        if len(parts) % 50 == 0:
            time.sleep(0.05)
        part = server.recv(1 << 18)
        if not part:
            break
        parts.append(part)
        got += len(part)
    writer.result()
    log("server read", b"".join(parts))


@case(BOTH)
def short_connections(net, log):
    """Connect, one question, one answer, close; a thousand times."""
    listener = net.listen()
    rounds = net.scaled(1000, 100)

    def serve():
        for index in range(rounds):
            with listener.accept()[0] as sock:
                sock.sendall(read_all(sock)[::-1] if index % 2 else read_exactly(sock, 100)[::-1])

    serving = Task(serve)
    right = 0
    for index in range(rounds):
        with net.connect(listener) as sock:
            data = pattern(100, index % 5)
            sock.sendall(data)
            if index % 2:
                sock.shutdown(socket.SHUT_WR)
            right += read_all(sock) == data[::-1]
    serving.result()
    log("right", right == rounds)


#: Bits of a client's exit status.
_WRONG, _EMPTY_HANDED = 1, 2


@case(BOTH, limit=_BESIDE_A_WRITER)
def many_processes(net, log):
    """Eight processes a side, each pair exchanging at full speed."""
    listener = net.listen()
    count, total = 8, net.scaled(4 << 20)
    children = []
    for index in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                sock = net.connect(listener)
                data = pattern(total, index)
                writer = Task(_send_in_pieces, sock, data, _sizes(index, 10, 200000))
                empty_handed = []
                right = read_exactly(sock, total, empty_handed=empty_handed) == data
                writer.result()
                code = (0 if right else _WRONG) | (_EMPTY_HANDED if empty_handed else 0)
            finally:
                os._exit(code)
        children.append(pid)
    servers = []
    for _index in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                sock = listener.accept()[0]
                left = total
                while left:
                    part = sock.recv(100000)
                    left -= len(part)
                    sock.sendall(part)
                code = int(sock.recv(1) != b"")
            finally:
                os._exit(code)
        servers.append(pid)
    exits = [os.waitpid(pid, 0)[1] >> 8 for pid in children]
    log("clients right", [code & _WRONG == 0 for code in exits])
    log("a blocking recv said EAGAIN", any(code & _EMPTY_HANDED for code in exits))
    log("server exits", [os.waitpid(pid, 0)[1] for pid in servers])


@case(BOTH)
def idle_between(net, log):
    """Bursts with idle time between them, so that delayed ACKs and RTT callbacks find the socket idle."""
    client, server = net.pair()
    for index in range(8):
        burst = pattern(30 * 64 if index % 2 else 3 << 18, index)
        writer = Task(_send_in_pieces, client, burst, iter(lambda size=64 if index % 2 else 65536: size, 0))
        log(f"burst {index}", read_exactly(server, len(burst)))
        writer.result()
        time.sleep(0.06)
    server.sendall(b"done")
    log("end", read_exactly(client, 4))
