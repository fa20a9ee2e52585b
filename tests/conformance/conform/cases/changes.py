# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments at which a direction changes between redirection and TCP, under load: demotion, leaving the map, closing."""

import contextlib
import os
import random
import select
import signal
import socket
import time

from ..app import Mismatch, Process, Task, pattern, read_all, read_exactly, readable
from ..case import BOTH, case

#: Small messages in a row after which the data path takes a direction back to TCP: around that it gets interesting.
_RUN = 32


class _End:
    """One end of a connection that writes the pattern in pieces of changing size and checks what it reads."""

    def __init__(self, sock, out_seed, in_seed, total, chance):
        self.sock = sock
        self._chance = chance
        self._out, self._in = pattern(total, out_seed), pattern(total, in_seed)
        self._sent = self._read = 0
        self._size = self._left = 0
        sock.setblocking(False)

    @property
    def done(self):
        return self._sent == len(self._out) and self._read == len(self._in)

    @property
    def events(self):
        return (select.POLLOUT if self._sent < len(self._out) else 0) | select.POLLIN

    def write(self):
        """One message: small ones come in runs of about the length that counts, big ones alone."""
        if not self._left:
            small = self._chance.random() < 0.8
            self._size = self._chance.choice((1, 60, 1000, 20000) if small else (40000, 65536, 300000))
            self._left = self._chance.randrange(_RUN - 8, _RUN + 40) if small else self._chance.randrange(1, 4)
        self._left -= 1
        with contextlib.suppress(BlockingIOError):
            self._sent += self.sock.send(self._out[self._sent : self._sent + self._size])

    def read(self):
        """What is there, checked."""
        try:
            part = self.sock.recv(self._chance.choice((1000, 70000, 1 << 20)))
        except BlockingIOError:
            return
        if part != self._in[self._read : self._read + len(part)] or not part:
            raise Mismatch(f"wrong bytes at {self._read} of {len(self._in)}: {part[:20]!r}")
        self._read += len(part)


def _pump(socks, out_seed, in_seed, total, seed):
    """Write and read on all sockets until each has sent and got ``total`` bytes."""
    chance = random.Random(seed)
    ends = {sock.fileno(): _End(sock, out_seed, in_seed, total, chance) for sock in socks}
    while any(not end.done for end in ends.values()):
        poller = select.poll()
        for number, end in ends.items():
            if not end.done:
                poller.register(number, end.events)
        ready = poller.poll(10000)
        if not ready:
            raise Mismatch(f"nothing happens any more: {sum(not end.done for end in ends.values())} ends wait")
        chance.shuffle(ready)
        for number, mask in ready:
            end = ends[number]
            if mask & select.POLLIN and chance.random() < 0.7:
                end.read()
            if mask & select.POLLOUT and end.events & select.POLLOUT and chance.random() < 0.7:
                end.write()


@case(BOTH, bound=90)
def under_fire(net, log):
    """Thirty connections between two processes, runs and bursts both ways, each process stopped at random moments."""
    pairs = [net.pair() for _index in range(30)]
    total = net.scaled(3 << 20, 200000)
    pumps = [
        Process(_pump, [client for client, _server in pairs], 1, 2, total, 11),
        Process(_pump, [server for _client, server in pairs], 2, 1, total, 12),
    ]
    chance = random.Random()
    until = time.monotonic() + 4
    while time.monotonic() < until:
        victim = chance.choice(pumps)
        os.kill(victim.pid, signal.SIGSTOP)
        time.sleep(chance.random() * 0.01)
        os.kill(victim.pid, signal.SIGCONT)
        time.sleep(chance.random() * 0.01)
    log("exits", [pump.exit_code() for pump in pumps])


@case(BOTH, bound=60)
def run_then_close(net, log):
    """A run of small messages that is about to be demoted, then close at once, read later: nothing is lost."""
    listener = net.listen()
    rounds = net.scaled(400, 60)
    right = 0
    for index in range(rounds):
        client, server = net.pair(listener=listener)
        count, size = _RUN - 4 + index % 9, (1, 100, 5000)[index % 3]
        data = pattern(count * size, index % 5)

        def write(sock=client, data=data, size=size):
            for offset in range(0, len(data), size):
                sock.sendall(data[offset : offset + size])
            sock.close()

        writer = Task(write)
        if index % 4 == 0:
            writer.result()
        right += read_all(server) == data
        writer.result()
        server.close()
    log("right", right == rounds)


@case(BOTH, bound=60)
def runs_towards_each_other(net, log):
    """Both ends send runs at the same time, are demoted and leave together; then they talk."""
    listener = net.listen()
    rounds = net.scaled(150, 30)
    right = 0
    for index in range(rounds):
        client, server = net.pair(listener=listener)
        count, size = _RUN + index % 20, (10, 300)[index % 2]

        def write(sock, seed, count=count, size=size):
            data = pattern(count * size, seed)
            for offset in range(0, len(data), size):
                sock.sendall(data[offset : offset + size])

        writers = [Task(write, client, 1), Task(write, server, 2)]
        right += read_exactly(server, count * size) == pattern(count * size, 1)
        right += read_exactly(client, count * size) == pattern(count * size, 2)
        for writer in writers:
            writer.result()
        client.sendall(pattern(50000, 3))
        right += read_exactly(server, 50000) == pattern(50000, 3)
        server.sendall(pattern(50000, 4))
        right += read_exactly(client, 50000) == pattern(50000, 4)
        client.close()
        server.close()
    log("right", right == 4 * rounds)


@case(BOTH, bound=60)
def answer_meets_leaving(net, log):
    """The reader of a run starts to answer at every possible moment of the writer's demotion and leaving."""
    listener = net.listen()
    rounds = net.scaled(300, 60)
    right = 0
    for index in range(rounds):
        client, server = net.pair(listener=listener)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = index % 60

        def serve(sock=server, start=start):
            read_exactly(sock, start * 10 + 10)
            for _count in range(5):
                sock.sendall(b"answer" * 10)
            data = read_exactly(sock, (100 - start) * 10 - 10)
            sock.sendall(b"end")
            return len(data)

        serving = Task(serve)
        for count in range(100):
            client.sendall(b"%010d" % count)
        right += read_exactly(client, 303) == b"answer" * 50 + b"end"
        right += serving.result() == (100 - start) * 10 - 10
        client.close()
        server.close()
    log("right", right == 2 * rounds)


@case(BOTH, bound=60)
def writers_and_ways(net, log):
    """Six threads write small and big messages on one socket while its way changes: no error, no byte lost."""
    for turn in range(net.scaled(8, 2)):
        client, server = net.pair()

        def write(index, sock=client):
            for count in range(200):
                sock.sendall(bytes([index]) * (10 if count % 50 else 70000))

        writers = [Task(write, index) for index in range(6)]
        data = read_exactly(server, 6 * (196 * 10 + 4 * 70000))
        for writer in writers:
            writer.result()
        log(f"turn {turn}", [data.count(index) for index in range(6)])
        log(f"turn {turn}: nothing more", readable(server, 0.02))
        client.close()
        log(f"turn {turn}: end", server.recv(1))


@case(BOTH, bound=60)
def reset_meets_leaving(net, log):
    """RST at every possible moment of a run: the other end sees a beginning of the stream, then an end or an error."""
    listener = net.listen()
    good = 0
    rounds = net.scaled(200, 60)
    for index in range(rounds):
        client, server = net.pair(listener=listener)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        def write(sock=client, count=index % 60):
            for number in range(count):
                sock.sendall(b"%05d" % number)
            sock.close()

        writer = Task(write)
        data = b""
        try:
            while True:
                if not readable(server):
                    raise Mismatch("no end is reported")
                part = server.recv(1000)
                if not part:
                    break
                data += part
        except ConnectionResetError:
            pass
        writer.result()
        good += data == b"".join(b"%05d" % number for number in range(60))[: len(data)]
        server.close()
    log("good", good == rounds)
