# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaving the map: soon, and never while a byte is on its way."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
from support.datapath import SOURCE, read_exactly
from support.fault import HeldPage
from support.waiting import wait_for

TCP_DEFER_ACCEPT = 9
TCP_QUICKACK = 12


def side(lab, server: socket.socket, index: int):
    return lab.redirection.flow(server.getsockname()[1])[index]


def one_way(client, server, turns: int = 200) -> None:
    for _turn in range(turns):
        client.sendall(b"small")
        assert read_exactly(server, 5) == b"small"


def test_a_one_way_run_of_small_messages_leaves(lab):
    client, server = lab.pair()
    one_way(client, server)
    counters = lab.redirection.counters()
    assert counters["redirected"].events == 32
    assert counters["demoted"].events < 168
    assert counters["socket_left"].events >= 1
    assert lab.redirection.peers() == 2 - counters["socket_left"].events
    server.sendall(b"a reply at last")
    assert read_exactly(client, 15) == b"a reply at last"
    one_way(server, client)
    assert lab.redirection.peers() == 0
    one_way(client, server)


def test_a_reader_that_always_waits_leaves_too(lab):
    """It is inside recv whenever something comes, and goes in the acknowledgement that it sends when it has read."""
    client, server = lab.pair()
    total = 500 * 4096
    read: list = []
    reader = threading.Thread(target=lambda: read.append(read_exactly(server, total)))
    reader.start()
    for turn in range(500):
        client.sendall(bytes([turn % 256]) * 4096)
        time.sleep(0.0002)
    reader.join(20)
    assert read == [b"".join(bytes([turn % 256]) * 4096 for turn in range(500))]
    assert lab.redirection.events("redirected") == 32
    assert lab.redirection.peers() == 0


def test_request_and_reply_stay(lab):
    client, server = lab.pair()
    for _turn in range(100):
        one_way(client, server, 10)
        one_way(server, client, 1)
    counters = lab.redirection.counters()
    assert counters["redirected"].events == 1100
    assert counters["socket_left"].events == 0


def test_big_messages_stay(lab):
    client, server = lab.pair()
    data = bytes(30000)
    for _turn in range(100):
        client.sendall(data)
        read_exactly(server, len(data))
    assert lab.redirection.events("redirected") == 100


@pytest.mark.parametrize(("below", "after", "redirected"), [(0, 32, 200), (5, 32, 200), (6, 32, 32), (6, 5, 5)])
def test_the_settings_decide_what_small_is(lab, below, after, redirected):
    lab.redirection.set(demote_below=below, demote_after=after)
    client, server = lab.pair()
    one_way(client, server)
    assert lab.redirection.events("redirected") == redirected


def receive_into(sock, page):
    thread = threading.Thread(target=sock.recv_into, args=(page.memory, 1))
    thread.start()
    page.wait()
    return thread


def waits_for_a_lock(thread: threading.Thread) -> bool:
    """A socket's, for which threads sleep uninterruptibly, unlike for anything else that they do here."""
    state = Path(f"/proc/self/task/{thread.native_id}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "D"


def race(lab):
    """Acknowledgements let the client leave just as the server is about to append to its queue.

    The client's direction is TCP from the start. A receive that is held on a page keeps the client locked: the
    server's message has passed its verdict and waits for that lock, and the acknowledgement, which comes first when
    the lock is free, finds mode drain: time to go.

    :returns: what the client reads afterwards.
    """
    listener = lab.listener()
    listener.setsockopt(socket.IPPROTO_TCP, TCP_DEFER_ACCEPT, 5)
    client = lab.connect(listener)
    client.sendall(b"first")
    server = lab.keep(listener.accept()[0])
    server.sendall(b"1")
    with HeldPage() as server_page, HeldPage() as client_page:
        server_reads = receive_into(server, server_page)
        client.sendall(b"second")
        client_reads = receive_into(client, client_page)
        server_sends = threading.Thread(target=server.sendall, args=(b"2",))
        server_sends.start()
        server_page.release()
        server_reads.join()
        wait_for(lambda: waits_for_a_lock(server_sends))
        lab.redirection.set(mode="drain")
        client_page.release()
        client_reads.join()
        server_sends.join()
    assert side(lab, server, 0).state == "no_peer"
    client.settimeout(2)
    answer = client.recv(1)
    assert read_exactly(server, 10) == b"irstsecond"
    client.sendall(b"third")
    assert read_exactly(server, 5) == b"third"
    assert side(lab, server, 0).left
    return answer


def have_userfaultfd() -> bool:
    try:
        with HeldPage():
            return True
    except (OSError, KeyError):
        return False


needs_userfaultfd = pytest.mark.skipif(not have_userfaultfd(), reason="needs userfaultfd")


@needs_userfaultfd
def test_nothing_on_its_way_is_lost(lab):
    assert race(lab) == b"2"


def changed(tmp_path, rules: dict):
    """The programs' source with parts of leave.h replaced."""
    source = tmp_path / "changed"
    shutil.copytree(SOURCE.parent, source)
    header = source / "leave.h"
    text = header.read_text()
    for rule, instead in rules.items():
        assert rule in text
        text = text.replace(rule, instead)
    header.write_text(text)
    return source / SOURCE.name


@needs_userfaultfd
def test_that_race_loses_a_byte_without_the_proof(lab_with, tmp_path):
    """The same with the rules taken out: shows that the test above looks into the window."""
    rules = {" && !no_redirect_in_flight(peer)": " && !peer", "nobody_receives(own, occasion)": "true"}
    with lab_with(source=changed(tmp_path, rules)) as lab, pytest.raises((TimeoutError, ConnectionError)):
        race(lab)


def read_by_tcp(lab):
    """A pair whose server has read what came by TCP, and is in the map still."""
    for _attempt in range(50):
        client, server = lab.pair()
        one_way(client, server, 33)
        if not side(lab, server, 1).left:
            return client, server
    raise AssertionError("each left while it read")


@pytest.mark.parametrize("blocking", [False, True])
def test_only_who_never_waits_leaves_when_something_comes(lab, blocking):
    client, server = read_by_tcp(lab)
    server.setblocking(blocking)
    client.shutdown(socket.SHUT_WR)
    assert side(lab, server, 1).left != blocking
    assert server.recv(1) == b""


#: Some milliseconds between the last look and the removal; else the window is too short to be met in a test.
LATE = {
    "/* Takes the socket out": "static long late(__u32 turn, void *none)\n{\n\treturn !bpf_ktime_get_ns();\n}\n\n"
    "/* Takes the socket out",
    "\tpeers_delete(self);": "\tbpf_loop(2000000, late, (void *)0, 0);\n\tpeers_delete(self);",
}


def write(sock, messages: int, pause: float, *other) -> None:
    """In a process of its own, which has no other threads than these.

    :param other: a call that another thread is in meanwhile, and its argument; nothing if there is none.
    """
    sock.setblocking(True)
    if other:
        threading.Thread(target=other[0], args=other[1:], daemon=True).start()
        time.sleep(0.2)
    for _turn in range(messages):
        sock.sendall(b"small")
        time.sleep(pause)


def start_writer(client, *how):
    writer = multiprocessing.get_context("fork").Process(target=write, args=(client, *how))
    writer.start()
    client.close()
    return writer


@pytest.mark.parametrize("alone", [False, True])
def test_a_writer_leaves_unless_another_thread_may_enter_recv(lab, alone):
    client, server = lab.pair()
    writer = start_writer(client, 200, 0.0005, *(() if alone else (time.sleep, 60)))
    read_exactly(server, 1000)
    writer.join()
    assert side(lab, server, 0).left == alone


@pytest.mark.parametrize("reads", [False, True])
def test_a_program_that_only_writes_for_long_leaves_unless_it_waits_for_an_answer(lab, reads):
    client, server = lab.pair()
    writer = start_writer(client, 10_000, 0, *((client.recv, 1) if reads else (time.sleep, 60)))
    read_exactly(server, 50_000)
    assert side(lab, server, 0).left != reads
    server.sendall(b"!")
    writer.join()
    assert writer.exitcode == 0


def shutdown_on(sock, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    sock.shutdown(socket.SHUT_WR)


def enter_recv_late(lab) -> bytes:
    """What recv returns that waits, and that is entered as the end of the stream takes its socket out, if it does."""
    everywhere = os.sched_getaffinity(0)
    cpus = set(everywhere)
    client, server = read_by_tcp(lab)
    server.setblocking(True)
    writer = threading.Thread(target=shutdown_on, args=(client, cpus.pop()))
    os.sched_setaffinity(0, cpus)
    writer.start()
    while writer.is_alive() and not side(lab, server, 1).left:
        pass
    try:
        return server.recv(1)
    finally:
        writer.join()
        os.sched_setaffinity(0, everywhere)


two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


@two_cpus
def test_who_enters_recv_while_something_comes(lab_with, tmp_path):
    with lab_with(source=changed(tmp_path, LATE)) as lab:
        assert all(enter_recv_late(lab) == b"" for _attempt in range(5))
        assert lab.redirection.events("socket_left") > 0


@two_cpus
def test_who_enters_recv_gets_eagain_without_the_rule(lab_with, tmp_path):
    """Shows that the test above meets the window."""
    rules = {**LATE, "!nobody_enters(side, sk, occasion)": "false"}
    with lab_with(source=changed(tmp_path, rules)) as lab, pytest.raises(BlockingIOError):
        for _attempt in range(100):
            enter_recv_late(lab)


def exchange(one, other, seed: int, problems: list) -> None:
    """Both directions at once: runs of small messages with pauses, so that both ends get demoted and leave."""
    source = random.Random(seed)
    plans = [[source.randint(1, 200) for _each in range(source.randint(40, 400))] for _each in range(2)]
    datas = [random.Random(seed + i).randbytes(sum(plan)) for i, plan in enumerate(plans)]

    def write(sock, plan, data):
        at = 0
        for size in plan:
            sock.sendall(data[at : at + size])
            at += size

    def read(sock, data):
        try:
            if read_exactly(sock, len(data)) != data:
                problems.append(f"seed {seed}: wrong bytes")
        except (OSError, AssertionError) as error:
            problems.append(f"seed {seed}: {error!r}")

    threads = [
        threading.Thread(target=write, args=(one, plans[0], datas[0])),
        threading.Thread(target=write, args=(other, plans[1], datas[1])),
        threading.Thread(target=read, args=(other, datas[0])),
        threading.Thread(target=read, args=(one, datas[1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_many_leave_while_both_ends_write(lab):
    lab.redirection.set(demote_after=3)
    problems: list = []
    for turn in range(15):
        pairs = [lab.pair() for _each in range(8)]
        workers = [
            threading.Thread(target=exchange, args=(*pair, turn * 100 + index, problems))
            for index, pair in enumerate(pairs)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(90)
        for client, server in pairs:
            client.close()
            server.close()
    assert not problems
    assert lab.redirection.events("socket_left") > 0
    assert lab.redirection.events("redirected") > 0
    lab.redirection.wait_until_empty()


@pytest.mark.parametrize("half_close", [False, True])
def test_reading_goes_on_after_leaving(lab, half_close):
    """A reader that was blocked when its socket left, and one that comes later."""
    client, server = lab.pair()
    one_way(server, client, 3)
    results: list = []
    reader = threading.Thread(target=lambda: results.append(client.recv(100)))
    reader.start()
    one_way(client, server)
    if half_close:
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
    server.sendall(b"answer")
    reader.join(20)
    assert results == [b"answer"]
    big = os.urandom(300_000)
    writer = threading.Thread(target=server.sendall, args=(big,))
    writer.start()
    assert read_exactly(client, len(big)) == big
    writer.join()
