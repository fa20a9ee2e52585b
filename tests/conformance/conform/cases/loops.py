# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event loops as servers have them: one thread, many connections, nothing that blocks."""

import array
import contextlib
import random
import resource
import select
import socket
import time

from .. import libc
from ..app import SOON, Mismatch, Task, read_exactly
from ..case import BOTH, Limit, case

_WORD = 8
#: Each word of it is its own number: wrong bytes tell where they belong.
_CODED = array.array("Q", range(1 << 19)).tobytes()


class _Coded:
    """One direction's bytes. first: the word it begins with; number of a connection, so that no two are the same."""

    def __init__(self, first=0):
        self._first = first * _WORD
        self.sent = self.seen = 0

    def part(self, place, count):
        """``count`` bytes of the stream from ``place`` on, or what is left up to the end of the coded bytes."""
        begin = (self._first + place) % len(_CODED)
        return _CODED[begin : begin + count]

    def see(self, data):
        """Count what was read; Mismatch unless it is what comes next."""
        place = 0
        while place < len(data):
            wanted = self.part(self.seen + place, len(data) - place)
            if data[place : place + len(wanted)] != wanted:
                raise Mismatch(self._difference(data[place : place + len(wanted)], wanted, self.seen + place))
            place += len(wanted)
        self.seen += len(data)

    @staticmethod
    def _difference(data, wanted, place):
        at = next(index for index, pair in enumerate(zip(data, wanted)) if pair[0] != pair[1])
        found = _CODED.find(data[at : at + 2 * _WORD])
        return f"wrong bytes at {place + at}: those of {found} in the coded words"


def _write(sock, stream, size, total):
    """Send up to ``size`` of what is left of ``total`` bytes, if the socket takes any."""
    with contextlib.suppress(BlockingIOError):
        stream.sent += sock.send(stream.part(stream.sent, min(size, total - stream.sent)))


def _read(sock, stream, size=1 << 18):
    """Read what is there, if anything is."""
    with contextlib.suppress(BlockingIOError):
        stream.see(sock.recv(size))


def _write_in_bursts(clients, total, seed):
    """Messages of all sizes to each client in turn, in no order, until each has sent ``total`` bytes."""
    chance = random.Random(seed)
    left = dict(clients)
    while left:
        sock = chance.choice(list(left))
        stream = left[sock]
        for _index in range(chance.randrange(1, 6)):
            size = min(chance.choice((1, 60, 1448, 4096, 40000)), total - stream.sent)
            data = stream.part(stream.sent, size)
            sock.sendall(data)
            stream.sent += len(data)
        if stream.sent == total:
            del left[sock]


def _read_what_fionread_says(sock, stream):
    """As nginx does: as much as the kernel says is there; no more reads once it says that nothing is."""
    while True:
        count = libc.ioctl_int(sock, libc.SIOCINQ)
        if not count:
            return
        data = sock.recv(count)
        if len(data) != count:
            raise Mismatch(f"FIONREAD said {count}, recv gave {len(data)}")
        stream.see(data)


@case(BOTH, limit=Limit("fionread", {"every byte seen": False}, varies=True, kernels=(None, (6, 17))))
def fionread_with_edges(net, log):
    """Reads sized by FIONREAD, edge-triggered, on many connections: no byte stays behind without an edge."""
    listener = net.listen()
    count, total = net.scaled(64, 16), net.scaled(768 << 10)
    pairs = [net.pair(listener=listener) for _index in range(count)]
    epoll = select.epoll()
    servers = {server.fileno(): (server, _Coded(index * 997)) for index, (_client, server) in enumerate(pairs)}
    for number in servers:
        epoll.register(number, select.EPOLLIN | select.EPOLLET)
    clients = [(client, _Coded(index * 997)) for index, (client, _server) in enumerate(pairs)]
    writers = [Task(_write_in_bursts, clients[index::4], total, index) for index in range(4)]
    left = count * total
    while left:
        events = epoll.poll(SOON)
        if not events:
            break
        for number, _mask in events:
            sock, stream = servers[number]
            before = stream.seen
            _read_what_fionread_says(sock, stream)
            left -= stream.seen - before
    log("every byte seen", left == 0)
    if not left:
        for writer in writers:
            writer.result()


def _allow_descriptors(count):
    """Raise the limit of open files, and for root the hard one, too."""
    hard = max(count, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_BURSTS = (10, 500, 4000, 33000)


def _answer_bursts(epoll, servers, answers):
    """Look at what comes; say how much there was at the end of each burst, until so many answers are given."""
    while answers:
        for number, _mask in epoll.poll(SOON):
            sock, stream, ends = servers[number]
            _read(sock, stream)
            if ends and stream.seen == ends[0]:
                ends.pop(0)
                sock.send(b"%08d" % stream.seen)
                answers -= 1


def _burst(clients, size):
    """One message on each connection, all at once, then the answers; how many were right and in time."""
    for sock, stream in clients:
        data = stream.part(stream.sent, size)
        sock.sendall(data)
        stream.sent += len(data)
    right = 0
    for sock, stream in clients:
        sock.settimeout(SOON)
        try:
            right += read_exactly(sock, 8) == b"%08d" % stream.sent
        except socket.timeout:
            break  # one that waits for ever is enough
        sock.settimeout(None)
    return right


@case(BOTH, bound=90)
def bursts_on_thousands(net, log):
    """2,500 connections; bursts on all of them at once: every byte right, and none waits for ever."""
    count = net.scaled(2500, 100)
    _allow_descriptors(2 * count + 100)
    listener = net.listen(1024)
    clients, servers, epoll = [], {}, select.epoll()
    ends = [sum(_BURSTS[: index + 1]) for index in range(len(_BURSTS))]
    for index in range(count):
        client, server = net.pair(listener=listener)
        server.setblocking(False)
        clients.append((client, _Coded(index * 31)))
        servers[server.fileno()] = (server, _Coded(index * 31), list(ends))
        epoll.register(server, select.EPOLLIN)
    serving = Task(_answer_bursts, epoll, servers, count * len(_BURSTS))
    for size in _BURSTS:
        log(f"{size} bytes: answers missing", count - _burst(clients, size))
    serving.result(SOON)


def _stream_both_ways(sock, outgoing, incoming, total, size):
    """One thread writes and reads the socket until ``total`` bytes went each way."""
    sock.setblocking(False)
    poller = select.poll()
    while outgoing.sent < total or incoming.seen < total:
        writes = select.POLLOUT if outgoing.sent < total else 0
        poller.register(sock, select.POLLIN | writes)
        if not poller.poll(SOON * 1000):
            raise Mismatch(f"no progress: {outgoing.sent} sent, {incoming.seen} read of {total}")
        _write(sock, outgoing, size, total)
        _read(sock, incoming)


@case(BOTH)
def both_ways_at_once(net, log):
    """Each end streams and reads in one thread, with messages of several sizes: every byte at its place."""
    for size in (3000, 40000, 200000):
        total = net.scaled(8 << 20)
        client, server = net.pair()
        there, back = (_Coded(), _Coded()), (_Coded(1 << 18), _Coded(1 << 18))
        far = Task(_stream_both_ways, server, back[0], there[1], total, size)
        _stream_both_ways(client, there[0], back[1], total, size)
        far.result(SOON)
        log(f"{size}: there", there[1].seen == total)
        log(f"{size}: back", back[1].seen == total)


class _StreamAndPings:
    """A server of one thread: streams to one socket as fast as that takes it, and echoes what another one says."""

    def __init__(self, streaming, pinging, total, pings):
        self.stream = _Coded()
        self._streaming, self._pinging = streaming, pinging
        self._total, self._left = total, pings * _WORD
        for sock in (streaming, pinging):
            sock.setblocking(False)

    def serve(self):
        """Until all was sent and every ping has its answer."""
        epoll = select.epoll()
        epoll.register(self._streaming, select.EPOLLOUT)
        epoll.register(self._pinging, select.EPOLLIN)
        while self._left or self.stream.sent < self._total:
            for number, _mask in epoll.poll(SOON):
                if number == self._pinging.fileno():
                    self._answer()
                elif self.stream.sent < self._total:
                    _write(self._streaming, self.stream, 100000, self._total)
                else:
                    epoll.modify(self._streaming, 0)

    def _answer(self):
        with contextlib.suppress(BlockingIOError):
            data = self._pinging.recv(1 << 16)
            self._pinging.send(data)
            self._left -= len(data)


def _read_slowly(sock, total):
    """Some KiB at a time with a pause after each; Mismatch when bytes are wrong."""
    stream = _Coded()
    while stream.seen < total:
        data = sock.recv(48 << 10)
        if not data:
            break
        stream.see(data)
        time.sleep(0.002)
    return stream.seen


@case(BOTH)
def slow_reader_beside_pings(net, log):
    """A server of one thread streams to a slow reader and answers another client's pings: each of them gets all."""
    total, pings = net.scaled(12 << 20), net.scaled(600, 100)
    listener = net.listen()
    reader, streaming = net.pair(listener=listener)
    pinger, pinging = net.pair(listener=listener)
    serving = Task(_StreamAndPings(streaming, pinging, total, pings).serve)
    reading = Task(_read_slowly, reader, total)
    pinger.settimeout(SOON)
    right = 0
    for index in range(pings):
        pinger.sendall(b"%08d" % index)
        right += read_exactly(pinger, _WORD) == b"%08d" % index
    log("pings unanswered", pings - right)
    log("stream right", reading.result(4 * SOON) == total)
    serving.result(SOON)
