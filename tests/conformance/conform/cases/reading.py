# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to read: flags, ioctls, vectors, splice."""

import array
import os
import select
import socket
import threading
import time

from .. import libc
from ..app import Task, eventually, pattern, read_all, read_exactly, readable, shown
from ..case import ALL, BOTH, Limit, case


@case(ALL)
def peek(net, log):
    """MSG_PEEK shows the same bytes again and takes none."""
    client, server = net.pair()
    client.sendall(b"first")
    log("peek", server.recv(100, socket.MSG_PEEK))
    log("peek a part", server.recv(2, socket.MSG_PEEK))
    log("read", server.recv(2))
    log("peek the rest", server.recv(100, socket.MSG_PEEK))
    log("read the rest", server.recv(100))
    log.call("peek nothing", server.recv, 10, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    client.close()
    log("peek end", server.recv(10, socket.MSG_PEEK))


@case(BOTH)
def peek_big(net, log):
    """MSG_PEEK into a large message, then reading it in pieces."""
    client, server = net.pair()
    data = pattern(100000)
    client.sendall(data)
    log("arrived", eventually(lambda: len(server.recv(60000, socket.MSG_PEEK)) == 60000))
    log("peek", server.recv(60000, socket.MSG_PEEK) == data[:60000])
    log("read", read_exactly(server, len(data), 777) == data)


@case(BOTH)
def peek_across_messages(net, log):
    """MSG_PEEK over several waiting messages shows them joined."""
    client, server = net.pair()
    for part in (b"one", b"two", b"three"):
        client.sendall(part)
    log("peek all", eventually(lambda: server.recv(100, socket.MSG_PEEK) == b"onetwothree"))
    log("read", read_exactly(server, 11))


@case(BOTH)
def one_recv_takes_waiting_messages(net, log):
    """One recv returns all messages that wait."""
    client, server = net.pair()
    for index in range(10):
        client.sendall(b"%d" % index)
    log("arrived", eventually(lambda: len(server.recv(100, socket.MSG_PEEK)) == 10))
    log("read", server.recv(100))


@case(BOTH, limit=Limit("waitall", {"first recv": "1000 bytes sha256:" + "541b3e9daa09b20b"}))
def waitall(net, log):
    """MSG_WAITALL waits for all bytes asked for."""
    client, server = net.pair()

    def send():
        for _index in range(5):
            client.sendall(b"\0" * 1000)
            time.sleep(0.02)
            eventually(lambda: not libc.ioctl_int(server, libc.SIOCINQ))  # until the reader has taken it

    sender = Task(send)
    got = log("first recv", server.recv(5000, socket.MSG_WAITALL))
    log("the rest", len(got) + len(read_exactly(server, 5000 - len(got))))
    sender.result()


@case(BOTH)
def waitall_ended_by_close(net, log):
    """MSG_WAITALL returns what there is when the stream ends."""
    client, server = net.pair()
    client.sendall(b"short")
    client.close()
    log("recv", server.recv(100, socket.MSG_WAITALL))
    log("end", server.recv(100, socket.MSG_WAITALL))


_TOO_EARLY = {"readable too early": True, "recv returned": (10, "EAGAIN"), "left": (150, 160)}


@case(BOTH, limit=Limit("rcvlowat", _TOO_EARLY))
def receive_low_water_mark(net, log):
    """SO_RCVLOWAT: not readable, and recv waits, below the mark."""
    client, server = net.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 100)
    client.sendall(b"a" * 10)
    log("readable too early", readable(server, 0.1))
    returned = threading.Event()
    sender = Task(lambda: (returned.wait(0.3), client.sendall(b"a" * 150)))
    got = log.call("recv returned", lambda: len(server.recv(1000)))
    returned.set()
    sender.result()
    log("left", len(read_exactly(server, 160 - (got or 0))))


@case(BOTH, limit=Limit("fionread", {"two messages": 0, "read in part": 0}, varies=True, kernels=(None, (6, 17))))
def fionread(net, log):
    """FIONREAD (SIOCINQ) tells the unread bytes."""
    client, server = net.pair()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    log("nothing", libc.ioctl_int(server, libc.SIOCINQ))
    client.sendall(b"12345")
    client.sendall(b"678")
    log("arrived", readable(server))
    log("two messages", libc.ioctl_int(server, libc.SIOCINQ))
    log("read", read_exactly(server, 4))
    log("read in part", libc.ioctl_int(server, libc.SIOCINQ))
    log("read the rest", read_exactly(server, 4))
    log("nothing again", libc.ioctl_int(server, libc.SIOCINQ))


@case(BOTH)
def unsent_queue(net, log):
    """SIOCOUTQ is 0 once the peer has everything."""
    client, server = net.pair()
    client.sendall(b"data")
    log("read", read_exactly(server, 4))
    log("outq", eventually(lambda: libc.ioctl_int(client, libc.SIOCOUTQ) == 0))


@case(BOTH)
def truncating_recv(net, log):
    """MSG_TRUNC on TCP: takes and discards the bytes asked for."""
    client, server = net.pair()
    client.sendall(b"discard")
    client.sendall(b"keep")
    log("arrived", eventually(lambda: len(server.recv(100, socket.MSG_PEEK)) == 11))
    log.call("discarded", server.recv_into, bytearray(7), 7, socket.MSG_TRUNC)
    log("read", read_exactly(server, 4))


@case(BOTH)
def zero_length(net, log):
    """recv of 0 bytes, send of 0 bytes."""
    client, server = net.pair()
    log.call("send nothing", client.send, b"")
    log.call("recv nothing of nothing", server.recv, 0, socket.MSG_DONTWAIT)
    client.sendall(b"x")
    log("arrived", readable(server))
    log.call("recv nothing of something", server.recv, 0)
    log("read", server.recv(10))
    log.call("send nothing again", client.send, b"")
    log("quiet", not readable(server, 0.1))


@case(BOTH)
def scattered_read(net, log):
    """readv and recvmsg into several buffers, across messages."""
    client, server = net.pair()
    client.sendall(pattern(500))
    client.sendall(pattern(500, 2))
    log("arrived", eventually(lambda: len(server.recv(2000, socket.MSG_PEEK)) == 1000))
    buffers = [bytearray(size) for size in (1, 10, 600, 100)]
    log("readv", os.readv(server.fileno(), buffers))
    log("readv buffers", buffers)
    buffers = [bytearray(size) for size in (100, 400)]
    count, control, flags, _peer = server.recvmsg_into(buffers)
    log("recvmsg", [count, len(control), flags & ~socket.MSG_CMSG_CLOEXEC])
    log("recvmsg buffers", buffers)


@case(BOTH)
def read_and_recvmmsg(net, log):
    """read(2) and recvmmsg(2)."""
    client, server = net.pair()
    client.sendall(b"for read")
    log("read", os.read(server.fileno(), 100))
    client.sendall(b"for recvmmsg")
    log("arrived", readable(server))
    log("recvmmsg", libc.recvmmsg(server, 6, 2, socket.MSG_DONTWAIT))


@case(
    ALL,
    limit=Limit("splice-read", {"splice": "EAGAIN", "in the pipe": "b''", "left on the socket": shown(pattern(500))}),
)
def splice_from_socket(net, log):
    """splice(2) from a socket to a pipe moves the bytes that wait."""
    client, server = net.pair()
    reader, writer = os.pipe()
    client.sendall(pattern(500))
    log("arrived", readable(server))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, libc.timeval(0.3))
    moved = log.call("splice", libc.splice, server.fileno(), writer, 1000)
    log("in the pipe", os.read(reader, 1000) if moved else b"")
    log("left on the socket", b"" if moved else server.recv(1000, socket.MSG_DONTWAIT))


@case(BOTH, limit=Limit("splice-read", {"proxy": (0, "stuck"), "server read": "b''"}))
def splice_proxy(net, log):
    """A proxy that splices from one connection to the other, as HAProxy and Go's io.Copy do."""
    client, inside = net.pair()
    outside, server = net.pair()
    reader, writer = os.pipe()
    inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, libc.timeval(2))

    def proxy():
        moved = 0
        while True:
            try:
                count = libc.splice(inside.fileno(), writer, 65536)
            except BlockingIOError:
                return "stuck"
            if not count:
                outside.shutdown(socket.SHUT_WR)
                return moved
            moved += count
            while count:
                count -= libc.splice(reader, outside.fileno(), count)

    data = pattern(200000)
    proxying = Task(proxy)
    sending = Task(lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
    log("proxy", proxying.result())
    outside.close()
    log("server read", read_all(server))
    sending.result()


_NOT_URGENT = {"priority event": False, "before the mark": "b'abc!'", "at mark": 0, "urgent byte": "EAGAIN"}


@case(BOTH, limit=Limit("urgent-data", _NOT_URGENT))
def urgent(net, log):
    """MSG_OOB: POLLPRI, the mark, the urgent byte out of line."""
    client, server = net.pair()
    poller = select.poll()
    poller.register(server, select.POLLPRI)
    client.sendall(b"abc")
    log.call("send urgent", client.send, b"!", socket.MSG_OOB)
    log("priority event", bool(poller.poll(1000)))
    log("before the mark", server.recv(100))
    log("at mark", libc.ioctl_int(server, libc.SIOCATMARK))
    log.call("urgent byte", server.recv, 1, socket.MSG_OOB | socket.MSG_DONTWAIT)
    client.sendall(b"def")
    log("after the mark", read_exactly(server, 3))
    log.call("nothing more", server.recv, 10, socket.MSG_DONTWAIT)


@case(BOTH)
def urgent_inline(net, log):
    """SO_OOBINLINE: the urgent byte in its place in the stream."""
    client, server = net.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    client.sendall(b"abc")
    log.call("send urgent", client.send, b"!", socket.MSG_OOB)
    client.sendall(b"def")
    log("read", read_exactly(server, 7))


@case(BOTH)
def recvmsg_flags(net, log):
    """recvmsg: flags, no control data, no address, over a message read in parts."""
    client, server = net.pair()
    client.sendall(b"0123456789")
    log("arrived", readable(server))
    for index in range(2):
        data, control, flags, address = server.recvmsg(5, 100)
        log(f"part {index}", [data, len(control), flags, address is None])


@case(BOTH, limit=Limit("inq-hint", {"hint": None, "hint at end": None}))
def inq_hint(net, log):
    """TCP_INQ: recvmsg tells how much is left."""
    client, server = net.pair()
    server.setsockopt(socket.IPPROTO_TCP, libc.TCP_INQ, 1)
    client.sendall(b"0123456789")
    log("arrived", readable(server))

    def hint(count):
        data, control, _flags, _address = server.recvmsg(count, 100)
        log(f"read {count}", data)
        return array.array("i", control[0][2])[0] if control else None

    log("hint", hint(4))
    log("hint at end", hint(6))


@case(BOTH)
def buffered_file(net, log):
    """The stdio way: makefile, lines, flush."""
    client, server = net.pair()
    out = client.makefile("wb")
    lines = [b"line %d\n" % index for index in range(1000)]
    writer = Task(lambda: (out.writelines(lines), out.close(), client.shutdown(socket.SHUT_WR)))
    with server.makefile("rb") as source:
        log("lines", source.readlines() == lines)
    writer.result()


@case(BOTH)
def tiny_reads(net, log):
    """A big message read a byte at a time."""
    client, server = net.pair()
    client.sendall(pattern(20000))
    log("read", read_exactly(server, 20000, 1))
    client.close()
    log("end", server.recv(1, socket.MSG_WAITALL) == b"")
