# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to write: vectors, many messages a call, files, pipes, zero copy, corking."""

import contextlib
import os
import socket
import tempfile

from .. import libc
from ..app import Task, eventually, fill, pattern, read_all, read_exactly, readable, small_buffers
from ..case import ALL, BOTH, Limit, case


@contextlib.contextmanager
def _file(data):
    with tempfile.TemporaryFile() as handle:
        handle.write(data)
        handle.flush()
        handle.seek(0)
        yield handle


def _around(block, begin, count):
    """``count`` bytes of an endless repetition of ``block``, from ``begin``."""
    part = block[begin : begin + count]
    return part + block[: count - len(part)]


@case(BOTH)
def gathered_write(net, log):
    """writev of many small and some big buffers; sendmsg of a thousand."""
    client, server = net.pair()
    buffers = [pattern(size, size % 5) for size in (1, 2, 3, 70000, 0, 5, 100000)]
    log("writev", os.writev(client.fileno(), buffers))
    log("read", read_exactly(server, sum(map(len, buffers))) == b"".join(buffers))
    buffers = [b"%03d" % index for index in range(1000)]
    log("sendmsg", client.sendmsg(buffers))
    log("read sendmsg", read_exactly(server, 3000))


@case(BOTH)
def many_messages_a_call(net, log):
    """sendmmsg: all messages, in order."""
    client, server = net.pair()
    messages = [pattern(size, size % 7) for size in (1, 10, 1000, 60000, 3, 4096)]
    log("sendmmsg", libc.sendmmsg(client, messages))
    log("read", read_exactly(server, sum(map(len, messages))) == b"".join(messages))


@case(ALL)
def send_file(net, log):
    """sendfile of a large file, between ordinary sends."""
    client, server = net.pair()
    data = pattern(5 << 20)

    def send():
        client.sendall(b"head")
        with _file(data) as handle:
            offset = 0
            while offset < len(data):
                offset += os.sendfile(client.fileno(), handle.fileno(), offset, 1 << 20)
        client.sendall(b"tail")
        client.shutdown(socket.SHUT_WR)

    sender = Task(send)
    log("read", read_all(server) == b"head" + data + b"tail")
    sender.result()


@case(BOTH)
def send_file_and_drop_it(net, log):
    """A short sendfile, then the file is gone: the peer reads the right length."""
    client, server = net.pair()
    with _file(b"o" * 8192) as handle:
        log("sendfile", os.sendfile(client.fileno(), handle.fileno(), 0, 8192))
    log("read", len(read_exactly(server, 8192)))


@case(ALL)
def splice_to_socket(net, log):
    """splice(2) from a pipe to a socket, and from a file through a pipe."""
    client, server = net.pair()
    reader, writer = os.pipe()
    data = pattern(1 << 20)

    def send():
        offset = 0
        while offset < len(data):
            count = os.write(writer, data[offset : offset + 60000])
            while count:
                moved = libc.splice(reader, client.fileno(), count)
                count -= moved
                offset += moved
        client.shutdown(socket.SHUT_WR)

    sender = Task(send)
    log("read", read_all(server) == data)
    sender.result()


@case(BOTH)
def changed_after_send(net, log):
    """A buffer changed right after send returned: the peer reads what was there at the call."""
    client, server = net.pair()
    for index in range(20):
        buffer = bytearray(b"%02d" % index * 30000)
        client.sendall(buffer)
        for position in range(0, len(buffer), 1000):
            buffer[position] = 0
        log(f"read {index}", read_exactly(server, len(buffer)) == b"%02d" % index * 30000)


@case(BOTH)
def more_flag(net, log):
    """MSG_MORE and TCP_CORK: everything arrives, at the latest when uncorked."""
    client, server = net.pair()
    for _index in range(10):
        client.send(b"part ", socket.MSG_MORE)
    client.send(b"end")
    log("MSG_MORE", read_exactly(server, 53))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    for _index in range(10):
        client.sendall(b"corked ")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    log("TCP_CORK", read_exactly(server, 70))
    client.send(b"left with MSG_MORE", socket.MSG_MORE)
    client.shutdown(socket.SHUT_WR)
    log("at the end", read_all(server))


@case(BOTH)
def more_flag_alone(net, log):
    """A message sent with MSG_MORE and nothing after it still arrives."""
    client, server = net.pair()
    client.send(b"alone", socket.MSG_MORE)
    log("read", read_exactly(server, 5))


@case(BOTH, bound=60)
def partial_send(net, log):
    """A non-blocking send larger than the room: takes a part, tells how much, and that part arrives."""
    client, server = net.pair()
    small_buffers(client, server)
    client.sendall(b"x")
    log("first byte", server.recv(1))
    client.setblocking(False)
    block = pattern(16 << 20)
    sent = 0
    try:
        while sent < 600 << 20:
            sent += client.send(memoryview(block)[sent % len(block) :])
    except BlockingIOError:
        pass
    log("stopped before the end", sent < 600 << 20)
    got = 0
    while got < sent:
        part = server.recv(1 << 20)
        begin = got % len(block)
        if not part or part != _around(block, begin, len(part)):
            break
        got += len(part)
    log("read", got == sent)
    log("nothing more", readable(server, 0.1))


@case(BOTH, bound=60)
def huge_send(net, log):
    """One send call of 100 MB, blocking, to a reader that begins later."""
    client, server = net.pair()
    data = pattern(net.scaled(100 << 20, 10 << 20))
    writer = Task(client.send, data)
    log("arrived", readable(server))
    log("read", read_exactly(server, len(data), 1 << 20) == data)
    log("send returned", writer.result() == len(data))


@case(BOTH)
def big_send_to_stopped_reader(net, log):
    """A send of 16 MB to a reader that has stopped blocks until the reader goes on."""
    client, server = net.pair()
    data = pattern(16 << 20)
    writer = Task(client.sendall, data)
    log("send blocks", writer.blocked(1.0))
    log("read", read_exactly(server, len(data), 1 << 20) == data)
    writer.result()


@case(BOTH)
def write_after_shutdown(net, log):
    """EPIPE after SHUT_WR, for send, writev, sendfile and sendmmsg."""
    client, server = net.pair()
    client.sendall(b"x")
    log("read", server.recv(1))
    client.shutdown(socket.SHUT_WR)
    log.call("send", client.send, b"x", socket.MSG_NOSIGNAL)
    log.call("sendmsg", client.sendmsg, [b"x"], (), socket.MSG_NOSIGNAL)
    log.call("sendmmsg", libc.sendmmsg, client, [b"x"])
    with _file(b"x") as handle:
        log.call("sendfile", os.sendfile, client.fileno(), handle.fileno(), 0, 1)
    log("peer end", server.recv(1))


@case(BOTH, limit=Limit("bad-buffer", {"send": 0}, kernels=((6, 18), None)))
def bad_buffers(net, log):
    """Calls with an unmapped buffer fail with EFAULT and leave the stream whole."""
    client, server = net.pair()
    client.sendall(b"before")
    log.call("send", libc.send_address, client, 1, 5000)
    client.sendall(b"after")
    log("read", read_exactly(server, 11))
    client.sendall(b"kept")
    log("arrived", readable(server))
    log.call("recv", libc.recv_address, server, 1, 5000)
    log("read after", eventually(lambda: server.recv(10, socket.MSG_PEEK) == b"kept"))


@case(BOTH, bound=60)
def blocked_in_sendfile(net, log):
    """sendfile blocks on a full connection and resumes."""
    client, server = net.pair()
    small_buffers(client, server)
    sent, blocked = fill(client)
    log("blocked", blocked)
    with _file(pattern(1 << 20)) as handle:

        def send():
            offset = 0
            while offset < 1 << 20:
                offset += os.sendfile(client.fileno(), handle.fileno(), offset, 1 << 20)

        sender = Task(send)
        log("sendfile blocks", sender.blocked())
        log("read", read_exactly(server, sent, 1 << 20) == pattern(sent))
        log("read the file", read_exactly(server, 1 << 20) == pattern(1 << 20))
        sender.result()
