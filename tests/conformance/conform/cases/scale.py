# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many connections, stopped readers, full maps: nothing is left behind, no other connection is disturbed."""

import random
import resource
import select
import socket
import struct
import time

from ..app import Mismatch, Process, Task, fill, pattern, read_all, read_exactly, readable, reset, small_buffers
from ..case import BOTH, case


def _read_promptly(sock, count, prompt):
    """Read ``count`` bytes of the pattern; Mismatch when they are wrong or keep the reader waiting."""
    data = pattern(count)
    offset = 0
    while offset < count:
        if not readable(sock, prompt):
            raise Mismatch(f"reader waits in vain at {offset} of {count} bytes")
        part = sock.recv(1 << 18)
        if part != data[offset : offset + len(part)] or not part:
            raise Mismatch(f"wrong bytes at {offset} of {count}")
        offset += len(part)


def _read_all_of(sock, count, prompt):
    """Read ``count`` bytes of the pattern, however long it takes; whether none of them kept the reader waiting."""
    data = pattern(count)
    offset = 0
    prompted = True
    while offset < count:
        prompted = readable(sock, prompt) and prompted
        part = sock.recv(1 << 18)
        if part != data[offset : offset + len(part)] or not part:
            raise Mismatch(f"wrong bytes at {offset} of {count}")
        offset += len(part)
    return prompted


def _endings():
    """Ways to end a connection, each called with (client, server)."""

    def talk(client, server):
        client.sendall(b"question")
        server.sendall(read_exactly(server, 8))
        read_exactly(client, 8)

    def client_first(client, server):
        talk(client, server)
        client.close()
        server.recv(1)
        server.close()

    def server_first(client, server):
        talk(client, server)
        server.close()
        client.recv(1)
        client.close()

    def client_resets(client, server):
        talk(client, server)
        reset(client)
        server.close()

    def unread_then_close(client, server):
        client.sendall(b"never read")
        server.close()
        client.close()

    def silent(client, server):
        client.close()
        server.close()

    def half_closed(client, server):
        client.sendall(b"q")
        client.shutdown(socket.SHUT_WR)
        read_all(server)
        server.sendall(b"answer")
        server.close()
        read_all(client)
        client.close()

    def both_reset(client, server):
        client.sendall(b"x")
        server.sendall(b"y")
        reset(server)
        reset(client)

    return [client_first, server_first, client_resets, unread_then_close, silent, half_closed, both_reset]


def _wide_ports():
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as setting:
        setting.write("1024 65535")


def _churn(net, host, count):
    """``count`` connections one after another, ended in every way."""
    sock = net.server_socket()
    sock.bind((host, 0))
    sock.listen(64)
    endings = _endings()
    for index in range(count):
        client = net.client_socket()
        client.connect(sock.getsockname()[:2])
        server = sock.accept()[0]
        endings[index % len(endings)](client, server)


@case(bound=240)
def churn(net, log):
    """A hundred thousand connections, ended in every way; no entry is left (the runner looks after every case)."""
    _wide_ports()
    total = net.scaled(100000, 2000)
    workers = 4
    processes = []
    for index in range(workers):
        processes.append(Process(_churn, net, f"127.0.1.{index + 1}", total // workers))
    log("exits", [process.exit_code() for process in processes])


@case(("ipv6",), bound=120)
def churn_ipv6(net, log):
    """The same over IPv6, fewer."""
    _wide_ports()
    process = Process(_churn, net, "::1", net.scaled(10000, 500))
    log("exit", process.exit_code())


@case(bound=120)
def churn_of_live_connections(net, log):
    """Hundreds of connections live at once, closed in random order from either end while others go on."""
    chance = random.Random(3)
    listener = net.listen(64)
    live = []
    done = 0
    for index in range(net.scaled(10000, 1000)):
        live.append(net.pair(listener=listener))
        if len(live) < 300:
            continue
        client, server = live.pop(chance.randrange(len(live)))
        message = b"%06d" % index
        for source, target in ((client, server), (server, client)):
            source.sendall(message)
            done += read_exactly(target, 6) == message
        first, second = (client, server) if index % 2 else (server, client)
        if index % 5 == 0:
            reset(first)
        first.close()
        second.close()
    log("all right", done == 2 * (net.scaled(10000, 1000) - 299))


def _fill_all(socks, limit):
    """Write the pattern to all sockets until none has taken anything for a moment. Returns bytes sent by socket."""
    block = pattern(limit)
    sent = dict.fromkeys(socks, 0)
    poller = select.poll()
    by_number = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        sock.setblocking(False)
        poller.register(sock, select.POLLOUT)
    while True:
        progress = False
        for number, _mask in poller.poll(300):
            sock = by_number[number]
            offset = sent[sock]
            if offset >= limit:
                poller.unregister(sock)
                continue
            try:
                sent[sock] += sock.send(block[offset : offset + 65536])
                progress = True
            except BlockingIOError:
                pass
        if not progress and not poller.poll(300):
            return sent


# In no state but this: TCP itself keeps such readers waiting for seconds once the connections have carried something.
@case(BOTH, bound=150, in_states=False)
def stopped_readers(net, log):
    """Two hundred readers stop: writers block, memory is bounded, others go on; resumed readers get all promptly."""
    count = net.scaled(200, 20)
    listener = net.listen(256)
    pairs = [net.pair(listener=listener) for _index in range(count)]
    small_buffers(*[sock for pair in pairs for sock in pair])
    limit = 64 << 20
    for turn in range(2):
        sent = _fill_all([client for client, _server in pairs], limit)
        log(f"turn {turn}: all writers blocked", sum(amount < limit for amount in sent.values()) >= count - 3)
        # 256 MiB is the largest default budget; beyond it each connection has its TCP buffers.
        log(f"turn {turn}: sum bounded", sum(sent.values()) < (256 << 20) + count * (2 << 20))
        other, other_server = net.pair(listener=listener)
        writer = Task(other.sendall, pattern(net.scaled(16 << 20)))
        _read_promptly(other_server, net.scaled(16 << 20), net.prompt)
        writer.result()
        for index in range(200):
            other_server.sendall(b"%04d" % index)
            if read_exactly(other, 4) != b"%04d" % index:
                raise Mismatch("another connection is disturbed")
        time.sleep(1)
        for client, server in pairs:
            _read_promptly(server, sent[client], net.prompt)
        log(f"turn {turn}: resumed", True)
    for client, server in pairs:
        client.close()
        log_end = server.recv(1)
        if log_end:
            raise Mismatch("bytes after the last")


@case(BOTH, bound=90)
def one_stopped_reader_default_buffers(net, log):
    """A reader with buffers of default size stops for a second, then reads on while the writer goes on."""
    _stop_and_resume(net, log, 1, False)


@case(bound=90, in_states=False)
def one_stopped_reader_ten_seconds(net, log):
    """A reader stops for ten seconds: long enough for TCP's timers to have backed off."""
    _stop_and_resume(net, log, 10, True)


def _stop_and_resume(net, log, seconds, small):
    client, server = net.pair()
    if small:
        small_buffers(client, server)
    sent, blocked = fill(client)
    log("writer blocked", blocked)
    time.sleep(seconds)
    more = 32 << 20
    rest = pattern(sent + more)[sent:]
    writer = Task(client.sendall, rest)
    _read_promptly(server, sent + more, net.prompt)
    writer.result()
    log("resumed", True)
    server.sendall(b"answer")
    log("answer", client.recv(100))


_SIZES = (1, 27, 100, 1448, 3000, 4096, 10000, 30001, 32741, 32769, 40000, 65483, 65536, 65537, 100000, 262144, 4 << 20)


@case(
    BOTH,
    bound=200,
    in_states=False,
)
def stopped_readers_of_any_size(net, log):
    """Messages of 1 byte to 4 MB until stopped readers block them; all resume promptly, with every byte."""
    listener = net.listen(64)
    stopped = []
    for size in _SIZES:
        client, server = net.pair(listener=listener)
        small_buffers(client, server)
        sent, blocked = fill(client, chunk=size, settle=0.1)
        log(f"{size}: blocked", blocked)
        stopped.append((size, client, server, sent))
    time.sleep(3)
    # All read at once: what one waits for does not make the next one's stop longer.
    readers = [(size, Task(_read_all_of, server, sent, net.prompt)) for size, _client, server, sent in stopped]
    for size, reader in readers:
        log(f"{size}: prompt", reader.result())
    for size, client, server, _sent in stopped:
        client.sendall(b"more")
        log(f"{size}: goes on", read_exactly(server, 4))


@case(BOTH, bound=90)
def stopped_both_ways(net, log):
    """Both ends write until blocked and read nothing; then both resume."""
    client, server = net.pair()
    small_buffers(client, server)
    there, blocked = fill(client)
    log("client blocked", blocked)
    back, blocked = fill(server)
    log("server blocked", blocked)
    time.sleep(1)
    _read_promptly(server, there, net.prompt)
    log("server resumed", True)
    _read_promptly(client, back, net.prompt)
    log("client resumed", True)
    client.sendall(b"again")
    log("server read", server.recv(10))


@case(BOTH, bound=90)
def trickling_reader(net, log):
    """A reader takes a little at a time from a full connection, then resumes at full speed."""
    client, server = net.pair()
    small_buffers(client, server)
    sent, blocked = fill(client)
    log("writer blocked", blocked)
    more = 8 << 20
    writer = Task(client.sendall, pattern(sent + more)[sent:])
    data = pattern(sent + more)
    offset = 0
    right = True
    for _index in range(40):
        part = server.recv(3000)
        right = right and part == data[offset : offset + len(part)]
        offset += len(part)
        time.sleep(0.02)
    while offset < len(data):
        if not readable(server, net.prompt):
            raise Mismatch(f"reader waits in vain at {offset} of {len(data)} bytes")
        part = server.recv(1 << 18)
        right = right and part == data[offset : offset + len(part)]
        offset += len(part)
    writer.result()
    log("right", right)


@case(bound=90)
def small_messages_to_stopped_reader(net, log):
    """A flood of 10-byte messages to a stopped reader blocks, is bounded, and arrives."""
    client, server = net.pair()
    small_buffers(client, server)
    client.setblocking(False)
    size = 10
    sent = 0  # bytes: a full socket may take a part of a message
    blocked = False
    limit = 3000000 * size
    poller = select.poll()
    poller.register(client, select.POLLOUT)
    while sent < limit and not blocked:
        count, part = divmod(sent, size)
        try:
            sent += client.send(struct.pack("!Q2x", count)[part:])
        except BlockingIOError:
            blocked = not poller.poll(300)
    log("blocked", blocked)
    client.shutdown(socket.SHUT_WR)
    received = read_all(server)
    log("bytes", len(received) == sent)
    log("in order", received == b"".join(struct.pack("!Q2x", index) for index in range(sent // size + 1))[:sent])


@case(BOTH, load={"max_entries": {"peers": 8, "flows": 4}})
def map_full(net, log):
    """More connections than the maps hold: the rest are plain TCP; closing some makes room."""
    listener = net.listen()
    for turn in range(2):
        pairs = [net.pair(listener=listener) for _index in range(20)]
        for index, (client, _server) in enumerate(pairs):
            client.sendall(pattern(3000, index))
        for index, (client, server) in enumerate(pairs):
            server.sendall(read_exactly(server, 3000)[::-1])
            log(f"turn {turn} pair {index}", read_exactly(client, 3000) == pattern(3000, index)[::-1])
        for client, server in pairs:
            client.close()
            server.close()


@case(load={"max_entries": {"peers": 8, "flows": 4}}, bound=90)
def map_full_churn(net, log):
    """Connections come and go over full maps, with only one end of some in them."""
    listener = net.listen()
    live = []
    right = 0
    rounds = net.scaled(3000, 300)
    for index in range(rounds):
        live.append(net.pair(listener=listener))
        if len(live) > 6:
            client, server = live.pop((index * 7) % 6)
            client.sendall(b"%06d" % index)
            server.sendall(read_exactly(server, 6)[::-1])
            right += read_exactly(client, 6) == (b"%06d" % index)[::-1]
            (reset if index % 3 == 0 else socket.socket.close)(client)
            server.close()
    log("right", right == rounds - 6)


@case(bound=90)
def descriptors_run_out(net, log):
    """accept fails with EMFILE; the connection waits and works later."""
    listener = net.listen()
    clients = [net.connect(listener) for _index in range(3)]
    for index, client in enumerate(clients):
        client.sendall(b"%d" % index)
    highest = max(client.fileno() for client in clients)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    log.call("accept", lambda: listener.accept() and None)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for index, client in enumerate(clients):
        server = listener.accept()[0]
        log(f"read {index}", server.recv(10))
        server.sendall(b"fine")
        log(f"answer {index}", client.recv(10))
