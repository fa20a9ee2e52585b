# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other protocols and interfaces over the same sockets: TLS in the kernel, MPTCP, io_uring, ssl, asyncio."""

import asyncio
import socket
import struct

from .. import libc, uring
from ..app import Task, pattern, read_exactly, readable
from ..case import BOTH, Limit, case


def _without_mptcp():
    """Why MPTCP cannot be used here, or None."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, libc.IPPROTO_MPTCP).close()
    except OSError as error:
        return f"this kernel has no MPTCP (socket: {error.strerror})"
    return None


def _tls_keys():
    # TLS 1.2, AES-GCM-128: version, cipher, iv, key, salt, record number
    return struct.pack("HH8s16s4s8s", 0x0303, 51, b"i" * 8, b"k" * 16, b"s" * 4, b"\0" * 8)


_NO_KEYS = {"client keys": "EINVAL", "server keys": "EINVAL"}


@case(BOTH, redirects=None, needs=libc.without_ktls, limit=Limit("ktls", _NO_KEYS))
def kernel_tls(net, log):
    """TLS in the kernel on a new connection, both ends."""
    client, server = net.pair()
    for name, sock, direction in (("client", client, 1), ("server", server, 2)):
        log.call(f"{name} ULP", sock.setsockopt, socket.IPPROTO_TCP, libc.TCP_ULP, b"tls")
        log.call(f"{name} keys", sock.setsockopt, libc.SOL_TLS, direction, _tls_keys())
    log.call("send", client.send, b"secret" * 100)
    log("read", read_exactly(server, 600))


@case(BOTH, redirects=None, needs=_without_mptcp)
def mptcp_both_ends(net, log):
    """MPTCP sockets on both ends."""
    _talk(net, log, libc.IPPROTO_MPTCP, libc.IPPROTO_MPTCP)


@case(BOTH, redirects=None, needs=_without_mptcp)
def mptcp_client_only(net, log):
    """An MPTCP client of a TCP server falls back to TCP."""
    _talk(net, log, 0, libc.IPPROTO_MPTCP)


@case(BOTH, redirects=None, needs=_without_mptcp)
def mptcp_server_only(net, log):
    """A TCP client of an MPTCP server, as Go programs have it by default."""
    _talk(net, log, libc.IPPROTO_MPTCP, 0)


def _talk(net, log, server_protocol, client_protocol):
    listener = net.listen(sock=net.server_socket(server_protocol))
    for index in range(3):
        client, server = net.pair(net.client_socket(client_protocol), listener)
        client.sendall(b"ping")
        log(f"server read {index}", read_exactly(server, 4))
        writer = Task(server.sendall, pattern(2 << 20))
        log(f"client read {index}", read_exactly(client, 2 << 20) == pattern(2 << 20))
        writer.result()
        writer = Task(client.sendall, pattern(1 << 20, 2))
        log(f"server read more {index}", read_exactly(server, 1 << 20) == pattern(1 << 20, 2))
        writer.result()
        client.close()
        log(f"end {index}", server.recv(1))
        server.close()


@case(BOTH, needs=uring.missing)
def uring_send_and_recv(net, log):
    """io_uring: a recv that waits, sends small and large, poll, the end of the stream."""
    client, server = net.pair()
    with uring.Ring() as ring:
        waiting = bytearray(100)
        ring.recv(server, waiting, 1)
        ring.send(client, b"through the ring", 2)
        results = dict(ring.wait(2))
        log("send", results[2])
        log("recv", [results[1], waiting[: results[1]]])
        data = pattern(300000)
        ring.send(client, data, 3, socket.MSG_WAITALL)
        ring.submit()
        log("large read", read_exactly(server, len(data)) == data)
        log("large send", dict(ring.wait(1))[3])
        ring.poll(server, 4)
        ring.submit()
        client.sendall(b"event")
        log("poll", dict(ring.wait(1))[4] & 1)
        log("read", server.recv(100))
        ring.recv(server, waiting, 5)
        ring.submit()
        client.close()
        log("end", dict(ring.wait(1))[5])


@case(BOTH, needs=uring.missing, bound=60, limit=Limit("uring-waitall", {"read": False}, varies=True))
def uring_large_send_to_slow_reader(net, log):
    """io_uring: a send of 64 MB while the reader reads; what it did not take is sent again."""
    client, server = net.pair()
    data = pattern(net.scaled(64 << 20, 8 << 20))

    def read():
        return readable(server), read_exactly(server, len(data), 1 << 20) == data

    reader = Task(read)
    sent = 0
    with uring.Ring() as ring:
        while sent < len(data):
            ring.send(client, memoryview(data)[sent:], 1, socket.MSG_WAITALL)
            taken = ring.wait(1)[0][1]
            if taken <= 0:
                log("send failed", taken)
                break
            sent += taken
    log("sent", sent == len(data))
    # Whether the reader has seen any of it by now depends on how much the buffers hold (redirected: the budget).
    arrived, right = reader.result()
    log("arrived", arrived)
    log("read", right)


@case(BOTH)
def asyncio_streams(net, log):
    """asyncio: a hundred connections of streams in one loop."""
    rounds, size = 20, 30000

    async def serve(reader, writer):
        while True:
            data = await reader.read(size)
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk(index, port):
        reader, writer = await asyncio.open_connection(net.family.client_host, port)
        message = pattern(size, index % 5)
        for _round in range(rounds):
            writer.write(message)
            await writer.drain()
            if await reader.readexactly(size) != message:
                return 0
        writer.close()
        return 1

    async def main():
        server = await asyncio.start_server(serve, net.family.server_host, 0)
        port = server.sockets[0].getsockname()[1]
        return sum(await asyncio.gather(*[talk(index, port) for index in range(100)]))

    log("right", asyncio.run(main()))


@case(BOTH)
def asyncio_send_file_and_half_close(net, log):
    """asyncio: write_eof, sendfile of the loop, pause and resume of reading."""
    import tempfile

    data = pattern(3 << 20)

    async def serve(reader, writer):
        question = await reader.read()
        with tempfile.TemporaryFile() as handle:
            handle.write(data)
            handle.seek(0)
            writer.write(question)
            await writer.drain()
            await asyncio.get_running_loop().sendfile(writer.transport, handle)
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, net.family.server_host, 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(net.family.client_host, port, limit=1000)
        writer.write(b"question")
        writer.write_eof()
        await asyncio.sleep(0.2)
        return await reader.read()

    log("read", asyncio.run(main()) == b"question" + data)
