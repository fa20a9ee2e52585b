# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Socket options that ask for what only TCP does: set on a connection, and before there is one."""

import errno
import mmap
import select
import socket
import time

from .. import libc, uring
from ..app import Task, eventually, pattern, read_exactly, readable
from ..case import BOTH, Limit, case

SO_TIMESTAMP = 29
SO_TIMESTAMPING = 37
SO_PEEK_OFF = 42
SO_MAX_PACING_RATE = 47
#: SOF_TIMESTAMPING_: TX_SOFTWARE, SOFTWARE, OPT_ID, TX_ACK.
_SENT_AND_ACKNOWLEDGED = 1 << 1 | 1 << 4 | 1 << 7 | 1 << 9


def _without_peek_offset():
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
        except OSError as error:
            return f"this kernel has no SO_PEEK_OFF for TCP ({error.strerror}); Linux has it from 6.9 on"
    return None


def _made(net, option, value):
    """A pair whose sockets had the option before they were connected: the accepted one has that of the listener."""
    listener, client = net.listen(), net.client_socket()
    for sock in (listener, client):
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    pair = net.pair(client, listener)
    listener.close()
    return pair


def _peeked(sock, count):
    """Peek until so many bytes were shown, each call from where the last one ended."""
    shown = b""
    while len(shown) < count:
        shown += sock.recv(count - len(shown), socket.MSG_PEEK)
    return shown


def _peek(log, client, server):
    client.sendall(b"abc")
    client.sendall(b"def")
    log("arrived", eventually(lambda: len(server.recv(6, socket.MSG_PEEK | socket.MSG_DONTWAIT)) > 0))
    server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    log("peek", _peeked(server, 2))
    log("peek on", _peeked(server, 4))
    log("read", read_exactly(server, 6))


@case(BOTH, needs=_without_peek_offset, limit=Limit("peek-offset", {"peek on": ("b'abcd'", "b'abca'")}))
def peek_offset(net, log):
    """SO_PEEK_OFF: each MSG_PEEK goes on from where the last one ended."""
    _peek(log, *net.pair())


@case(BOTH, needs=_without_peek_offset, redirects=None)
def peek_offset_before(net, log):
    """The same, set before the connection is made."""
    _peek(log, *_made(net, SO_PEEK_OFF, 0))


def _received_at(log, client, server):
    def told():
        client.sendall(b"message")
        data, control, _flags, _address = server.recvmsg(7, 200)
        return data == b"message" and [kind for _level, kind, _value in control] == [SO_TIMESTAMP]

    # The kernel begins to take the time a moment after the first socket asks for it.
    log("time", any(told() or time.sleep(0.02) for _message in range(25)))


@case(BOTH, limit=Limit("timestamps", {"time": False}))
def receive_timestamp(net, log):
    """SO_TIMESTAMP: recvmsg tells when the bytes came."""
    client, server = net.pair()
    server.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    _received_at(log, client, server)


@case(BOTH, redirects=None)
def receive_timestamp_before(net, log):
    """The same, set before the connection is made."""
    _received_at(log, *_made(net, SO_TIMESTAMP, 1))


def _error_queued(sock, milliseconds):
    """Whether the error queue, which also tells of success, holds something by then."""
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(milliseconds))


def _sent_at(log, client, server):
    client.sendall(b"message")
    log("read", read_exactly(server, 7))
    log("time", _error_queued(client, 500))


@case(BOTH, limit=Limit("timestamps", {"time": False}, varies=True))
def send_timestamp(net, log):
    """SO_TIMESTAMPING: the error queue tells when the bytes were sent and acknowledged."""
    client, server = net.pair()
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, _SENT_AND_ACKNOWLEDGED)
    _sent_at(log, client, server)


@case(BOTH, redirects=None)
def send_timestamp_before(net, log):
    """The same, set before the connection is made."""
    _sent_at(log, *_made(net, SO_TIMESTAMPING, _SENT_AND_ACKNOWLEDGED & ~(1 << 7)))


def _send_pages(log, client, server):
    pages = mmap.mmap(-1, 1 << 18)
    pages[:] = pattern(1 << 18)
    log.call("send", client.send, memoryview(pages)[:40000], libc.MSG_ZEROCOPY)
    log("read", read_exactly(server, 40000) == pattern(40000))
    log("completion", _error_queued(client, 1000))


@case(BOTH, limit=Limit("zerocopy-completion", {"completion": False}))
def zero_copy(net, log):
    """MSG_ZEROCOPY: the bytes arrive and a completion is queued for each send."""
    client, server = net.pair()
    log.call("SO_ZEROCOPY", client.setsockopt, socket.SOL_SOCKET, libc.SO_ZEROCOPY, 1)
    _send_pages(log, client, server)


@case(BOTH, redirects=None)
def zero_copy_before(net, log):
    """The same, allowed before the connection is made."""
    _send_pages(log, *_made(net, libc.SO_ZEROCOPY, 1))


@case(BOTH, redirects=None)
def receive_low_water_mark_before(net, log):
    """SO_RCVLOWAT, set before the connection is made: not readable below the mark."""
    client, server = _made(net, socket.SO_RCVLOWAT, 100)
    client.sendall(b"a" * 10)
    log("readable too early", readable(server, 0.1))
    client.sendall(b"a" * 150)
    log("readable", readable(server))
    log("read", len(read_exactly(server, 160)))


@case(BOTH, limit=Limit("pacing", {"slowed down": False}, varies=True))
def pacing(net, log):
    """SO_MAX_PACING_RATE: half a megabyte takes its time."""
    client, server = net.pair()
    client.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 1_000_000)
    data = pattern(500_000)
    sender = Task(client.sendall, data)
    begin = time.monotonic()
    log("read", read_exactly(server, len(data)) == data)
    log("slowed down", time.monotonic() - begin > 0.25)
    sender.result()


_REFUSED = {"sent": [-errno.EOPNOTSUPP, 0], "arrived": 0}


def _send_without_copy(log, sender, reader):
    sender.sendall(b"first")
    log("read", read_exactly(reader, 5))
    with uring.Ring() as ring:
        ring.send_zero_copy(sender, pattern(40000), 1)
        results = log("sent", [result for _tag, result in ring.wait(2)])
    log("arrived", len(read_exactly(reader, max(results[0], 0))))


@case(BOTH, needs=uring.without_zero_copy, limit=Limit("zerocopy-completion", _REFUSED))
def uring_zero_copy_send(net, log):
    """io_uring: a send without a copy, from the end that connected."""
    _send_without_copy(log, *net.pair())


@case(BOTH, needs=uring.without_zero_copy, limit=Limit("zerocopy-completion", _REFUSED, varies=True))
def uring_zero_copy_answer(net, log):
    """io_uring: a send without a copy, from the end that accepted. Refused once its socket has left the map."""
    _send_without_copy(log, *reversed(net.pair()))


@case(BOTH, limit=Limit("zerocopy-receive", {"copied": (0, "EAGAIN"), "left": 500}))
def zero_copy_receive(net, log):
    """TCP_ZEROCOPY_RECEIVE: the bytes that wait are mapped or copied."""
    client, server = net.pair()
    client.sendall(pattern(500))
    log("arrived", readable(server))
    copied = log.call("copied", libc.zero_copy_receive, server, 500)
    log("left", len(read_exactly(server, 500 - (copied or 0))))
