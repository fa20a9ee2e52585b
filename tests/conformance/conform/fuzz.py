# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random socket operations by many threads while the operator changes settings; every byte is checked.

A lane makes one connection after the other. Each end of a connection has a thread and a list of operations of its own,
drawn from the seed. Each direction of each connection has a stream of its own, so that a byte that is lost, repeated,
out of order or of another connection shows where it is read. What may fail is what TCP lets fail: once an end has
reset, dissolved or closed its socket early, the other may meet errors, but never a wrong byte.
"""

import array
import contextlib
import hashlib
import itertools
import json
import os
import random
import select
import socket
import threading
import time

from . import libc
from .app import Mismatch, Task, reset

_PERIOD = 65521
_SIZES = (1, 2, 60, 1000, 4096, 20000, 32768, 33000, 65536, 130000)
_MOST = 131072
#: Seconds without progress after which a connection that nobody broke counts as hung.
_PATIENCE = 20
#: Connections that lose segments at the same time, and seconds: TCP sends again after 0.2 and 0.6.
_LOSSY, _DEAF = 32, 0.8
_TCP_REPAIR = 19
_WITHOUT_KTLS = libc.without_ktls()

_SETTINGS = (
    {},
    {},
    {"mode": "observe"},
    {"mode": "drain"},
    {"budget": 0},
    {"budget": 300000},
    {"demote_below": 1 << 31, "demote_after": 1},
    {"demote_below": 30000, "demote_after": 3},
)


class Stream:
    """The bytes of one direction: any part of them can be computed from the stream's name and the place."""

    def __init__(self, name):
        block = hashlib.shake_128(name.encode()).digest(_PERIOD)
        self._blocks = block * (2 + _MOST // _PERIOD)
        self.name = name
        self.sent = self.read = 0

    def part(self, place, count):
        """``count`` bytes from ``place`` on."""
        begin = place % _PERIOD
        return self._blocks[begin : begin + count]

    def check(self, data):
        """Mismatch unless ``data`` is what comes next."""
        if data != self.part(self.read, len(data)):
            raise Mismatch(f"{self.name}: wrong bytes at {self.read}: {bytes(data[:24])!r} of {len(data)}")


class End:
    """One end of a connection, used by one thread."""

    def __init__(self, sock, outgoing, incoming, link, chance):
        self.sock = sock
        self.out, self.incoming = outgoing, incoming
        self.link = link
        self.chance = chance
        self.shut = False
        sock.setblocking(False)

    def _try(self, function, *arguments):
        """The result; None for would-block, or for an error on a connection that somebody broke."""
        try:
            return function(*arguments)
        except BlockingIOError:
            return None
        except OSError:
            if not self.link.broken:
                raise
            return None

    def send(self, size=None):
        """One message, in one buffer or several."""
        if self.shut:
            return
        data = self.out.part(self.out.sent, size or self.chance.choice(_SIZES))
        if self.chance.random() < 0.2:
            cut = self.chance.randrange(len(data) + 1)
            self.out.sent += self._try(self.sock.sendmsg, [data[:cut], data[cut:]]) or 0
        else:
            self.out.sent += self._try(self.sock.send, data) or 0

    def send_run(self):
        """Small messages in a row, as demotion looks for."""
        for _index in range(self.chance.randrange(20, 60)):
            if not self.shut:
                self.out.sent += self._try(self.sock.send, self.out.part(self.out.sent, 50)) or 0

    def recv(self, size=None):
        """What is there; None when nothing, b"" at the end of the stream."""
        size = size or self.chance.choice(_SIZES)
        if self.chance.random() < 0.2:
            peeked = self._try(self.sock.recv, size, socket.MSG_PEEK)
            if peeked:
                self.incoming.check(peeked)
        data = self._try(self.sock.recv, size)
        if data:
            self.incoming.check(data)
            self.incoming.read += len(data)
        return data

    def poll(self):
        """Wait a moment for something to read."""
        select.select([self.sock], [], [], self.chance.choice((0, 0, 0.001, 0.005)))

    def option(self):
        """Options that change nothing about the bytes.

        Kernel TLS does if there is any: such a socket cannot be dissolved, and in a map it has the limit ktls.
        """
        level, name, value = self.chance.choice(
            (
                (socket.SOL_SOCKET, socket.SO_RCVBUF, self.chance.choice((40000, 150000, 1 << 20))),
                (socket.SOL_SOCKET, socket.SO_SNDBUF, self.chance.choice((40000, 150000, 1 << 20))),
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, self.chance.randrange(2)),
                (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0"),
                (socket.IPPROTO_TCP, libc.TCP_ULP, b"tls" if _WITHOUT_KTLS else b"none"),
            )
        )
        with contextlib.suppress(OSError):
            self.sock.setsockopt(level, name, value)

    def pass_on(self):
        """The descriptor goes through a Unix socket, and the old one is closed."""
        here, there = socket.socketpair()
        with here, there:
            rights = array.array("i", [self.sock.fileno()])
            here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            _data, ancillary, _flags, _address = there.recvmsg(1, socket.CMSG_SPACE(rights.itemsize))
        self.sock.close()
        self.sock = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
        self.sock.setblocking(False)

    def repair(self):
        """Into TCP_REPAIR and out of it, as who saves connections does."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            self.sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)

    def shutdown(self):
        """Say that no more will be sent."""
        self.shut = True
        self._try(self.sock.shutdown, socket.SHUT_WR)

    def work(self, count):
        """``count`` random operations."""
        operations = (
            (self.send,) * 6
            + (self.recv,) * 6
            + (self.option, self.pass_on, self.repair)
            + (self.poll, self.poll, self.send_run)
        )
        for _index in range(count):
            self.chance.choice(operations)()
            if self.link.broken:
                return

    def finish(self):
        """Send no more, read to the end of the stream: all that was sent has come."""
        self.shutdown()
        self.read_to_end()
        self.link.finished.wait(_PATIENCE)

    def read_to_end(self):
        """Read to the end of the stream, or Mismatch."""
        last = time.monotonic()
        while not self.link.broken:
            data = self.recv(_SIZES[-1])
            if data == b"":
                break
            if data:
                last = time.monotonic()
            elif time.monotonic() - last > _PATIENCE:
                raise Mismatch(f"{self.incoming.name}: hangs at {self.incoming.read} of {self.incoming.sent}")
            else:
                select.select([self.sock], [], [], 0.2)


class Link:
    """A connection: its two ends, and whether one of them broke it."""

    def __init__(self, name, pair, chance):
        self.broken = False
        self.finished = threading.Barrier(2)
        streams = [Stream(f"{name} {way}") for way in ("there", "back")]
        seeds = [chance.getrandbits(64) for _end in pair]
        self.ends = [
            End(sock, streams[index], streams[1 - index], self, random.Random(seeds[index]))
            for index, sock in enumerate(pair)
        ]
        self.streams = streams

    def run(self, operations):
        """Random operations at both ends, then the orderly end."""

        def use(end):
            try:
                end.work(operations)
                end.finish()
            except threading.BrokenBarrierError:
                pass
            except BaseException:
                self.broken = True
                self.finished.abort()
                raise

        tasks = [Task(use, end) for end in self.ends]
        for task in tasks:
            task.result()
        for stream in self.streams:
            if stream.read != stream.sent:
                raise Mismatch(f"{stream.name}: {stream.read} of {stream.sent} bytes came")

    def run_and_break(self, operations, how):
        """Random operations at both ends; midway, the first end breaks off by ``how(socket)``."""
        first, second = self.ends

        def use():
            second.work(operations)
            deadline = time.monotonic() + _PATIENCE
            while not self.broken and time.monotonic() < deadline:
                second.recv(_SIZES[-1])
                second.poll()

        other = Task(use)
        first.work(operations // 2)
        self.broken = True
        how(first.sock)
        other.result()
        while second.recv():  # what is left is right, too
            pass

    def begin_to_lose(self):
        """The first end hears nothing any more, not even an acknowledgement; the second end half of what comes."""
        for end, one_in in zip(self.ends, (1, 2)):
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else one message is on its way at most
            libc.lose_segments(end.sock, one_in)

    def end_losing(self):
        """Nothing is lost any more, and the first end says that it has sent all."""
        for end in self.ends:
            libc.lose_no_more(end.sock)
        self.ends[0].shutdown()

    def end_well(self):
        """All that the first end has sent arrives, once."""
        first, second = self.ends
        second.read_to_end()
        if second.incoming.read != first.out.sent:
            raise Mismatch(f"{first.out.name}: {second.incoming.read} of {first.out.sent} bytes came")

    def close(self):
        """Close what is open."""
        for end in self.ends:
            end.sock.close()


def _simultaneous(net):
    """Two sockets that connect to each other at once, if that happens; else an ordinary pair."""
    socks = [net.client_socket() for _index in range(2)]
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((net.family.client_host, 0))
    addresses = [sock.getsockname() for sock in socks]
    for sock, address in zip(socks, reversed(addresses)):
        sock.setblocking(False)
        sock.connect_ex(address)
    for sock in socks:
        select.select([], [sock], [], 0.05)
        try:
            sock.getpeername()
        except OSError:
            for each in socks:
                each.close()
            return net.pair()
    return tuple(socks)


def _in_another_namespace(net):
    """A process in a network namespace of its own that ends with its connection half used."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            libc.unshare_network()
            client, server = net.pair()
            client.setblocking(False)
            client.send(b"x" * 100000)
            server.recv(10)
        os._exit(0)
    os.waitpid(pid, 0)


def _lane(net, seed, deadline, counts):
    """One connection after the other until the deadline."""
    chance = random.Random(seed)
    listener, again = net.listen(), None
    for number in itertools.count():
        if time.monotonic() > deadline:
            return
        how = chance.random()
        if how < 0.03:
            _in_another_namespace(net)
        pair = net.pair(again, listener) if again or how < 0.9 else _simultaneous(net)
        again = None
        link = Link(f"{seed} {number}", pair, chance)
        operations = chance.choice((3, 30, 200))
        ending = chance.random()
        if ending < 0.6:
            link.run(operations)
        elif ending < 0.7:
            link.run_and_break(operations, reset)
        elif ending < 0.8:
            link.run_and_break(operations, socket.socket.close)
        else:
            link.run_and_break(operations, libc.disconnect)
            again = link.ends[0].sock if ending < 0.95 else None
        for end in link.ends:
            if end.sock is not again:
                end.sock.close()
        if again:
            again.setblocking(True)
        counts.append(sum(stream.read for stream in link.streams))


def _lossy_lane(net, seed, deadline):
    """Many connections at a time on which TCP sends again what has come, merged with what has not."""
    chance = random.Random(seed)
    listener = net.listen()
    for number in itertools.count():
        if time.monotonic() > deadline:
            return
        links = [Link(f"{seed} {number}.{index}", net.pair(listener=listener), chance) for index in range(_LOSSY)]
        for link in links:
            link.begin_to_lose()
        size = chance.choice((50, 5000, 20000))
        for _turn in range(6):
            for link in links:
                link.ends[0].send(size)
                link.ends[1].recv(_SIZES[-1])
            time.sleep(0.005)
        time.sleep(_DEAF)
        for link in links:
            link.end_losing()
        for link in links:
            link.end_well()
            link.close()


def _operator(net, seed, deadline):
    chance = random.Random(seed)
    while time.monotonic() < deadline:
        net.operate("settings " + json.dumps(chance.choice(_SETTINGS)))
        time.sleep(chance.choice((0.002, 0.02, 0.1)))
    net.operate("settings {}")


def play(net, seed, seconds, lanes=8):
    """Run for ``seconds`` with this seed; returns what went wrong as a list of lines, empty when nothing did."""
    deadline = time.monotonic() + seconds
    counts = []
    tasks = [Task(_lane, net, f"{seed}/{index}", deadline, counts) for index in range(lanes)]
    tasks.append(Task(_lossy_lane, net, f"{seed}/lossy", deadline))
    tasks.append(Task(_operator, net, f"{seed}/operator", deadline))
    wrong = []
    for task in tasks:
        try:
            task.result(seconds + 3 * _PATIENCE)
        except Exception as error:
            wrong.append(f"seed {seed}: {type(error).__name__}: {error}")
    if not sum(counts):
        wrong.append(f"seed {seed}: no byte was carried")
    return wrong
