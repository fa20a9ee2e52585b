# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers that stop: their writers block, the host's memory stays within the budget, and all goes on when they do."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from support.datapath import read_exactly
from support.waiting import wait_for

MIB = 1 << 20
WINDOW = 2 * MIB
PAGE = os.sysconf("SC_PAGESIZE")
SYSCALLS = {"x86_64": 45, "aarch64": 207, "riscv64": 207}
RECVFROM = SYSCALLS.get(os.uname().machine)


def kernel_memory() -> int:
    """Bytes that all of the host's TCP holds."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * PAGE
    raise AssertionError("no TCP line in /proc/net/sockstat")


def fill(sock: socket.socket, message: bytes) -> int:
    """Write until it would block; how many bytes that took."""
    sock.setblocking(False)
    sent = 0
    while True:
        try:
            sent += sock.send(message)
        except BlockingIOError:
            sock.settimeout(20)
            return sent


def test_a_stopped_reader_blocks_its_writer(lab):
    client, server = lab.pair()
    sent = fill(client, os.urandom(65536))
    redirected = lab.redirection.bytes("redirected")
    assert 0 < redirected <= WINDOW
    assert sent < redirected + 12 * MIB, "TCP's own buffers hold the rest"
    assert lab.redirection.used() <= WINDOW
    assert lab.redirection.flow(server.getsockname()[1])[0].state in ("ahead", "behind")


def test_a_reader_that_waited_for_its_writer_is_given_more_room(lab):
    client, server = lab.pair()
    message, rooms = os.urandom(65536), []
    for _turn in range(5):
        before = lab.redirection.bytes("redirected")
        sent = fill(client, message)
        rooms.append(lab.redirection.bytes("redirected") - before)
        read_exactly(server, sent)
    most = min(8 * WINDOW, int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2]) // 2)
    assert rooms[0] <= WINDOW < rooms[1], "the first time it has not waited yet"
    assert most // 2 < rooms[-1] <= most
    assert rooms == sorted(rooms)


def segments_sent(sock: socket.socket) -> int:
    """Segments with data that the socket has sent by TCP, without those it has sent again."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    return struct.unpack_from("=I", info, 156)[0] - struct.unpack_from("=I", info, 100)[0]


@pytest.mark.parametrize("size", [33_000, 40_000, 50_000])
def test_a_big_answer_by_tcp_is_one_segment(lab, size):
    """The kernel hands it over in pieces of 32 KiB: Nagle's algorithm would hold the second back for 40 ms."""
    lab.redirection.set(budget=65536)
    lab.pair()[0].sendall(bytes(30000))  # nobody reads them: no room for an answer
    client, server = lab.pair()
    answer = os.urandom(size)
    sent = []
    for _turn in range(10):
        client.sendall(b"question")
        assert read_exactly(server, 8) == b"question"
        server.sendall(answer)
        assert read_exactly(client, size) == answer
        sent.append(segments_sent(server))
    assert lab.redirection.events("over_budget") == 10
    # The first ones may not fit into TCP's windows as they are at the beginning.
    assert [after - before for before, after in zip(sent[4:], sent[5:])] == [1] * 5


def test_a_blocked_writer_goes_on_at_once(lab):
    """Well after the stop: what TCP sent meanwhile must not wait for a retransmission."""
    lab.redirection.set(budget=64 * MIB)
    client, server = lab.pair()
    message = os.urandom(65536)
    sent = fill(client, message)
    time.sleep(4)
    more = 200
    writer = threading.Thread(target=client.sendall, args=(message * more,))
    writer.start()
    longest, last = 0.0, time.monotonic()
    wanted = sent + more * len(message)
    got = bytearray()
    while len(got) < wanted:
        part = server.recv(MIB)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        got += part
    writer.join()
    whole = (sent // len(message) + 1) * message
    assert got[:sent] == whole[:sent]
    assert got[sent:] == message * more
    assert longest < 2, "a retransmission timer that was backed off for 4 s"


def sleeps_in_recv(thread: threading.Thread) -> bool:
    state, call = (Path(f"/proc/self/task/{thread.native_id}/{name}").read_text() for name in ("stat", "syscall"))
    return state.rpartition(")")[2].split()[0] == "S" and call.split()[0] == str(RECVFROM)


@pytest.mark.skipif(os.uname().machine not in SYSCALLS, reason="the number of recvfrom is not known here")
def test_a_writer_beside_a_thread_in_recv_does_not_turn_to_tcp(lab):
    """Its socket's write space would wake that thread, which would say EAGAIN."""
    client, server = lab.pair()
    client.settimeout(None)
    said: list = []
    reader = threading.Thread(target=lambda: said.append(client.recv(100)))
    reader.start()
    while not sleeps_in_recv(reader):
        time.sleep(0.01)
    message = os.urandom(65536)
    for _turn in range(10 * MIB // len(message)):
        client.sendall(message)
    assert lab.redirection.flow(server.getsockname()[1])[0].state == "redirected"
    assert reader.is_alive()
    for _turn in range(10 * MIB // len(message)):
        assert read_exactly(server, len(message)) == message
    server.sendall(b"answer")
    reader.join(20)
    assert said == [b"answer"]


def test_a_reader_that_catches_up_gives_room_again(lab):
    lab.redirection.set(budget=8 * MIB)
    message = os.urandom(MIB)
    for _turn in range(5):
        pairs = [lab.pair() for _each in range(4)]
        for client, server in pairs:
            for _message in range(3):
                writer = threading.Thread(target=client.sendall, args=(message,))
                writer.start()
                assert read_exactly(server, len(message)) == message
                writer.join()
    # 20 connections, all open and idle, have sent 60 MiB under a budget of 8: stale charges are found out.
    assert lab.redirection.used() <= 8 * MIB
    assert lab.redirection.events("over_budget") < 60


def test_charges_end_with_the_connection(lab):
    client, server = lab.pair()
    client.sendall(os.urandom(300_000))
    assert lab.redirection.used() > 0
    client.close()
    assert lab.redirection.used() > 0, "the reader still holds it"
    server.close()
    lab.redirection.wait_until_empty()


@pytest.mark.parametrize("size", [65536, 4096])
def test_200_stopped_readers(lab, size):
    budget = 64 * MIB
    lab.redirection.set(budget=budget, demote_below=0)
    bystander = lab.pair()
    pairs = [lab.pair() for _each in range(200)]
    message = os.urandom(size)
    sent = [fill(client, message) for client, _server in pairs]
    assert all(sent)
    assert lab.redirection.used() <= budget
    held = sum(flow.sides[0].unread + flow.sides[1].unread for _key, flow in lab.redirection.flows())
    assert held <= budget
    # What plain TCP buffers for a blocked connection comes on top: at most its send and receive buffers.
    assert lab.redirection.bytes("redirected") <= budget
    for _turn in range(100):
        bystander[0].sendall(b"ping")
        assert read_exactly(bystander[1], 4) == b"ping"
        bystander[1].sendall(b"pong")
        assert read_exactly(bystander[0], 4) == b"pong"
    for (_client, server), size_sent in zip(pairs[::20], sent[::20]):
        whole = message * (size_sent // size + 1)
        assert read_exactly(server, size_sent) == whole[:size_sent]
    for client, server in (bystander, *pairs):
        client.close()
        server.close()
    lab.redirection.wait_until_empty()


def test_readers_that_close_with_bytes_unread_give_the_memory_back(lab):
    lab.redirection.set(budget=64 * MIB, demote_below=0)
    before = kernel_memory()
    message = os.urandom(65536)
    pairs = [lab.pair() for _each in range(50)]
    for client, _server in pairs:
        fill(client, message)
    for client, server in pairs:
        client.close()
        server.close()
    wait_for(lambda: kernel_memory() < before + 32 * MIB)


@pytest.mark.parametrize("size", [0, 32768])
def test_a_blocked_writer_hears_at_once_that_its_reader_is_gone(lab, size):
    """TCP resets it: bytes are unread. In a queue that TCP does not know they must not keep the window closed."""
    listener = lab.listener()
    if size:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    client = lab.connect(listener)
    server = lab.keep(listener.accept()[0])
    fill(client, os.urandom(65536))
    problems: list = []

    def write():
        try:
            while True:
                client.sendall(bytes(MIB))
        except OSError as error:
            problems.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    server.close()
    writer.join(15)
    assert isinstance(problems[0], (BrokenPipeError, ConnectionResetError))
