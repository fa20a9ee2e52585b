# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""poll, select and epoll: what is ready when, and that no wakeup is lost."""

import select
import socket
import threading
import time

from ..app import SOON, Task, eventually, fill, pattern, read_exactly, readable, reset, small_buffers
from ..case import ALL, BOTH, case

_NAMES = ("EPOLLIN", "EPOLLOUT", "EPOLLERR", "EPOLLHUP", "EPOLLRDHUP")
_ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP


def _ready(epoll, seconds):
    """Names of the events of the one registered socket, in a fixed order."""
    events = epoll.poll(seconds)
    return [name for name in _NAMES if events and events[0][1] & getattr(select, name)]


@case(ALL)
def poll_states(net, log):
    """poll: idle, data, read, half-closed, closed."""
    client, server = net.pair()
    poller = select.poll()
    poller.register(server, select.POLLIN | select.POLLOUT | select.POLLRDHUP)

    def state(label, wanted):
        log(label, eventually(lambda: poller.poll(0) == [(server.fileno(), wanted)]) or poller.poll(0))

    state("state: idle", select.POLLOUT)
    client.sendall(b"data")
    state("state: data", select.POLLIN | select.POLLOUT)
    log("read", server.recv(2))
    state("state: read in part", select.POLLIN | select.POLLOUT)
    log("read the rest", server.recv(10))
    state("state: read", select.POLLOUT)
    client.shutdown(socket.SHUT_WR)
    state("state: half-closed", select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    server.shutdown(socket.SHUT_WR)
    state("state: closed", select.POLLIN | select.POLLOUT | select.POLLRDHUP | select.POLLHUP)


@case(BOTH)
def select_states(net, log):
    """select: idle, data, read, end."""
    client, server = net.pair()

    def state():
        return [bool(part) for part in select.select([server], [server], [server], 0)]

    log("idle", state())
    client.sendall(b"data")
    log("arrived", readable(server))
    log("data", state())
    log("read", server.recv(10))
    log("after reading", state())
    client.close()
    log("end arrived", readable(server))
    log("end", state())


@case(ALL)
def epoll_level(net, log):
    """Level-triggered: reported again and again until read."""
    client, server = net.pair()
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLRDHUP)
    log("idle", _ready(epoll, 0.1))
    client.sendall(b"12345")
    client.sendall(b"67890")
    log("data", _ready(epoll, SOON))
    log("again", _ready(epoll, SOON))
    log("read", read_exactly(server, 7))
    log("rest", _ready(epoll, SOON))
    log("read rest", read_exactly(server, 3))
    log("empty", _ready(epoll, 0.1))
    client.close()
    log("end", _ready(epoll, SOON))


@case(ALL)
def epoll_edge(net, log):
    """Edge-triggered: one report for an arrival, none for what is left unread, one for the next arrival."""
    client, server = net.pair()
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLET)
    log("idle", _ready(epoll, 0.1))
    client.sendall(b"12345")
    log("arrival", _ready(epoll, SOON))
    log("no news", _ready(epoll, 0.1))
    log("read in part", server.recv(2))
    log("still no news", _ready(epoll, 0.1))
    client.sendall(b"678")
    log("next arrival", _ready(epoll, SOON))
    log("read all", read_exactly(server, 6))
    log("empty", _ready(epoll, 0.1))
    client.sendall(b"9")
    log("third arrival", _ready(epoll, SOON))


@case(BOTH)
def epoll_registered_late(net, log):
    """A socket registered when its data are already there, and re-armed with EPOLLONESHOT."""
    client, server = net.pair()
    client.sendall(b"early")
    log("arrived", readable(server))
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT)
    log("reported", _ready(epoll, SOON))
    client.sendall(b"more")
    log("one shot spent", _ready(epoll, 0.1))
    epoll.modify(server, select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT)
    log("re-armed", _ready(epoll, SOON))
    log("read", read_exactly(server, 9))


@case(BOTH)
def epoll_reset(net, log):
    """RST is reported as an error and hang-up."""
    client, server = net.pair()
    client.sendall(b"x")
    log("read", server.recv(1))
    epoll = select.epoll()
    epoll.register(server, _ALL)
    reset(client)
    log("reset", eventually(lambda: "EPOLLERR" in _ready(epoll, 0)))
    log("events", _ready(epoll, 0))
    log("SO_ERROR is set", server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0)


@case(BOTH, bound=60)
def writable_again_level(net, log):
    """Not writable when the peer does not read; writable after it has read."""
    client, server = net.pair()
    small_buffers(client, server)
    sent, blocked = fill(client)
    log("blocked", blocked)
    epoll = select.epoll()
    epoll.register(client, select.EPOLLOUT)
    log("not writable", _ready(epoll, 0))
    log("read", read_exactly(server, sent, 1 << 20) == pattern(sent))
    log("writable", _ready(epoll, SOON))


@case(BOTH, bound=60)
def writable_again_edge(net, log):
    """EPOLLOUT edge after EAGAIN, once the reader makes room; twenty times."""
    client, server = net.pair()
    small_buffers(client, server)
    epoll = select.epoll()
    epoll.register(client, select.EPOLLOUT | select.EPOLLET)
    log("at first", _ready(epoll, SOON))
    client.setblocking(False)
    rounds = 20
    writable = right = 0
    for _index in range(rounds):
        sent, _blocked = fill(client, settle=0.02)
        client.setblocking(False)
        _ready(epoll, 0)
        # fill() may have stopped just before the kernel asked for an edge: take one more EAGAIN, as programs do.
        while True:
            try:
                sent += client.send(b"x" * 1000)
            except BlockingIOError:
                break
        right += len(read_exactly(server, sent, 1 << 20)) == sent
        writable += _ready(epoll, SOON) == ["EPOLLOUT"]
    log("writable", writable)
    log("right", right)


@case(BOTH, bound=60)
def no_lost_wakeup_level(net, log):
    """A level-triggered echo server of forty connections, thousands of exchanges: none stalls."""
    _echo_server(net, log, select.EPOLLIN)


@case(BOTH, bound=60)
def no_lost_wakeup_edge(net, log):
    """The same with edges: every arrival is reported, whatever it races with."""
    _echo_server(net, log, select.EPOLLIN | select.EPOLLET)


def _echo_server(net, log, events):
    pairs = [net.pair() for _index in range(40)]
    epoll = select.epoll()
    servers = {server.fileno(): server for _client, server in pairs}
    for server in servers.values():
        server.setblocking(False)
        epoll.register(server, events)
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            for number, _mask in epoll.poll(0.2):
                while True:
                    try:
                        data = servers[number].recv(3000)
                    except BlockingIOError:
                        break
                    servers[number].sendall(data)
                    if not events & select.EPOLLET:
                        break

    rounds = net.scaled(150, 30)

    def talk(client):
        for index in range(rounds):
            message = pattern((3, 500, 2999)[index % 3], index % 5)
            client.sendall(message)
            if index % 2:
                client.sendall(message)
                message += message
            if read_exactly(client, len(message)) != message:
                return 0
        return 1

    serving = Task(serve)
    talkers = [Task(talk, client) for client, _server in pairs]
    log("right", sum(talker.result() for talker in talkers))
    stop.set()
    serving.result()


@case(BOTH)
def poll_wakes_blocked_poller(net, log):
    """A thread blocked in poll wakes for data; for big data after small; for the end."""
    client, server = net.pair()
    for index in range(10):
        waiting = Task(readable, server)
        time.sleep(0.01)
        message = pattern((1, 100000)[index % 2])
        writer = Task(client.sendall, message)
        log(f"woken {index}", waiting.result())
        log(f"read {index}", read_exactly(server, len(message)) == message)
        writer.result()
    waiting = Task(readable, server)
    time.sleep(0.01)
    client.close()
    log("woken by end", waiting.result())
    log("end", server.recv(1))


@case(BOTH)
def stays_readable_across_ways(net, log):
    """Bytes that went redirected and bytes that went over TCP wait together: readable until the last is read."""
    client, server = net.pair()
    small_buffers(client, server)
    sent = 0
    for size in (50000, *(50,) * 400, 60000, 10):
        client.sendall(pattern(size))
        sent += size
        if size == 50000:
            log("first part", len(read_exactly(server, 49000)))
            sent -= 49000
    left = sent
    always = True
    while left:
        always = always and readable(server, 1)
        left -= len(server.recv(333))
    log("always readable", always)
    log("nothing left", readable(server, 0.05))
