# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocking, non-blocking, timeouts and signals."""

import contextlib
import os
import signal
import socket
import threading
import time

from .. import libc
from ..app import SOON, Task, events, eventually, fill, pattern, read_exactly, readable, small_buffers
from ..case import ALL, BOTH, Limit, case


def _warm(client, server):
    """One message each way, so that both directions have decided their way."""
    client.sendall(b"w")
    server.recv(1)
    server.sendall(b"w")
    client.recv(1)


@case(ALL)
def recv_waits_for_send(net, log):
    """A blocked recv wakes for each message, small or big, in both directions."""
    client, server = net.pair()
    for index in range(20):
        source, target = (client, server) if index % 2 else (server, client)
        size = (1, 5000, 200000)[index % 3]
        reader = Task(read_exactly, target, size)
        time.sleep(0.005)
        source.sendall(pattern(size, index))
        log(f"read {index}", reader.result() == pattern(size, index))


@case(BOTH, bound=60)
def send_waits_for_recv(net, log):
    """A writer blocks when nobody reads, and wakes when somebody does."""
    client, server = net.pair()
    small_buffers(client, server)
    sent, blocked = fill(client)
    log("blocked", blocked)
    rest = pattern(3 << 20)
    writer = Task(client.sendall, rest)
    log("sendall blocks", writer.blocked())
    log("read what was sent", read_exactly(server, sent, 1 << 20) == pattern(sent))
    log("read the rest", read_exactly(server, len(rest)) == rest)
    writer.result()


@case(BOTH)
def recv_non_blocking(net, log):
    """EAGAIN when nothing is there, by O_NONBLOCK and by MSG_DONTWAIT."""
    client, server = net.pair()
    _warm(client, server)
    log.call("MSG_DONTWAIT", server.recv, 10, socket.MSG_DONTWAIT)
    server.setblocking(False)
    log.call("O_NONBLOCK", server.recv, 10)
    client.sendall(b"now")
    log("arrived", readable(server))
    log.call("read", server.recv, 10)
    log.call("empty again", server.recv, 10)
    client.close()
    log("end arrived", readable(server))
    log.call("end", server.recv, 10)


@case(BOTH, bound=60)
def send_non_blocking(net, log):
    """EAGAIN when the peer does not read; after it has read, sending goes on; every byte counted as sent arrives."""
    client, server = net.pair()
    small_buffers(client, server)
    sent, blocked = fill(client)
    log("blocked", blocked)
    log.call("MSG_DONTWAIT", client.send, b"x" * 100000, socket.MSG_DONTWAIT)
    log("read", read_exactly(server, sent, 1 << 20) == pattern(sent))
    again, blocked = fill(client)
    log("blocked again", blocked)
    log("read again", read_exactly(server, again, 1 << 20) == pattern(again))
    log.call("nothing more", server.recv, 10, socket.MSG_DONTWAIT)


@case(BOTH)
def recv_timeout(net, log):
    """SO_RCVTIMEO: EAGAIN after the time, data before it."""
    client, server = net.pair()
    _warm(client, server)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, libc.timeval(0.2))
    start = time.monotonic()
    log.call("timeout", libc.recv, server, 10)
    log("waited", time.monotonic() - start >= 0.19)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, libc.timeval(SOON))
    timer = threading.Timer(0.05, client.sendall, (b"in time",))
    timer.start()
    log.call("in time", libc.recv, server, 10)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, libc.timeval(0.2))
    log.call("timeout again", libc.recv, server, 10)


@case(BOTH, bound=60)
def send_timeout(net, log):
    """SO_SNDTIMEO: a blocked send ends with EAGAIN after the time."""
    client, server = net.pair()
    small_buffers(client, server)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, libc.timeval(0.2))
    log("blocked", fill(client)[1])
    log.call("timeout", libc.send, client, b"x" * 65536)


@case(BOTH)
def python_timeout(net, log):
    """settimeout of Python (poll, then a non-blocking call)."""
    client, server = net.pair()
    _warm(client, server)
    server.settimeout(0.1)
    try:
        server.recv(1)
        log("timed out", False)
    except socket.timeout:
        log("timed out", True)
    client.sendall(b"x")
    server.settimeout(10)
    log("read", server.recv(1))


@case(BOTH)
def recv_beside_small_sends(net, log):
    """A recv that waits is not disturbed by thousands of small messages that another thread sends on its socket."""
    client, server = net.pair()
    _warm(client, server)
    reader = Task(client.recv, 10)
    log("waits", reader.blocked())
    count, size = net.scaled(4000, 500), 2000
    writer = Task(lambda: [client.sendall(pattern(size)) for _turn in range(count)])
    left = count * size
    while left:
        left -= len(server.recv(min(left, 65536)))
        time.sleep(0.001)  # slower than the writer, which on TCP fills its send buffer
    writer.result()
    log("still waits", reader.blocked())
    server.sendall(b"answer")
    log.call("answer", reader.result)


@case(BOTH, limit=Limit("blocked-recv", {"still waits": False, "answer": "EAGAIN"}), bound=60)
def recv_beside_blocked_send(net, log):
    """Nor by a send of another thread that blocks on a full send buffer and goes on."""
    client, server = net.pair()
    small_buffers(client, server)
    _warm(client, server)
    reader = Task(client.recv, 10)
    log("waits", reader.blocked())
    sent, blocked = fill(client)
    log("blocked", blocked)
    rest = pattern(1 << 20)
    writer = Task(client.sendall, rest)
    log("sendall blocks", writer.blocked())
    log("read", len(read_exactly(server, sent + len(rest), 1 << 20)) == sent + len(rest))
    writer.result()
    log("still waits", reader.blocked())
    server.sendall(b"answer")
    log.call("answer", reader.result)


def _interrupting(seconds, restart):
    """Deliver SIGALRM to the main thread every ``seconds``, to a handler that does nothing.

    The first may come before the call that it is for.
    """
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, not restart)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


@case(BOTH, limit=Limit("blocked-recv", {"without restart": "EAGAIN", "with restart": "EAGAIN"}))
def recv_interrupted(net, log):
    """A signal without SA_RESTART ends a blocked recv with EINTR; with it, recv goes on."""
    client, server = net.pair()
    _warm(client, server)
    _interrupting(0.1, restart=False)
    log.call("without restart", libc.recv, server, 10)
    _interrupting(0.1, restart=True)
    timer = threading.Timer(0.3, client.sendall, (b"later",))
    timer.start()
    log.call("with restart", libc.recv, server, 10)


@case(BOTH, limit=Limit("blocked-recv", {"recv": "EAGAIN"}))
def recv_with_timeout_interrupted(net, log):
    """With SO_RCVTIMEO a signal ends recv with EINTR even under SA_RESTART."""
    client, server = net.pair()
    _warm(client, server)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, libc.timeval(10))
    _interrupting(0.1, restart=True)
    log.call("recv", libc.recv, server, 10)


@case(BOTH, bound=60)
def send_interrupted(net, log):
    """A signal ends a blocked send with EINTR when nothing of it was taken."""
    client, server = net.pair()
    small_buffers(client, server)
    log("blocked", fill(client)[1])
    _interrupting(0.1, restart=False)
    log.call("send", libc.send, client, b"x" * 65536)
    log("peer can still read", len(server.recv(10)))


@case(BOTH, bound=60)
def signals_under_traffic(net, log):
    """Thousands of signals under a stream: none of the calls loses or repeats a byte."""
    client, server = net.pair()
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.siginterrupt(signal.SIGALRM, True)
    total = net.scaled(32 << 20)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            data = memoryview(pattern(total))
            while data:
                with contextlib.suppress(InterruptedError):
                    data = data[libc.send(client, data[:150000]) :]
            code = 0
        finally:
            os._exit(code)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    parts, got = [], 0
    while got < total:
        try:
            part = libc.recv(server, 100000)
        except (InterruptedError, BlockingIOError):  # the second is the limit blocked-recv, see recv_interrupted
            continue
        if not part:
            break
        parts.append(part)
        got += len(part)
    signal.setitimer(signal.ITIMER_REAL, 0)
    log("server read", b"".join(parts))
    log("writer", os.waitpid(pid, 0)[1])


@case(BOTH)
def sigpipe(net, log):
    """SIGPIPE with EPIPE on a direction that was ended; none with MSG_NOSIGNAL."""
    client, server = net.pair()
    _warm(client, server)
    caught = []
    signal.signal(signal.SIGPIPE, lambda number, _frame: caught.append(number))
    client.shutdown(socket.SHUT_WR)
    log.call("with MSG_NOSIGNAL", client.send, b"x", socket.MSG_NOSIGNAL)
    log("signals", len(caught))
    log.call("without", client.send, b"x")
    log("signals now", len(caught))


@case(BOTH)
def sigpipe_after_peer_closed(net, log):
    """SIGPIPE when the peer has closed and answered with RST."""
    client, server = net.pair()
    _warm(client, server)
    caught = []
    signal.signal(signal.SIGPIPE, lambda number, _frame: caught.append(number))
    server.close()
    log("end", client.recv(1))
    log.call("first", client.send, b"x")
    log("reset arrived", eventually(lambda: "POLLHUP" in events(client)))
    log.call("second", client.send, b"x")
    log("signals", len(caught))


@case(BOTH)
def stopped_process(net, log):
    """SIGSTOP in the middle of a stream, SIGCONT later: nothing is lost on either side."""
    client, server = net.pair()
    total = net.scaled(24 << 20)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            data = memoryview(pattern(total))
            for index in range(0, total, 50000):
                client.sendall(data[index : index + 50000])
            code = 0
        finally:
            os._exit(code)
    client.close()
    parts = [read_exactly(server, total // 4)]
    for _round in range(5):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.05)
        os.kill(pid, signal.SIGCONT)
        parts.append(read_exactly(server, total // 10))
    parts.append(read_exactly(server, total))
    log("server read", b"".join(parts) == pattern(total))
    log("writer", os.waitpid(pid, 0)[1])
