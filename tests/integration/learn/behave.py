# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets that are used in one way each; prints the server's port of each way. Runs as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "conformance"))

from conform import uring

IPPROTO_TCP, TCP_ULP = 6, 31
SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000
SO_TIMESTAMP, SO_TIMESTAMPING, SO_PEEK_OFF = 29, 37, 42
WAYS = {}


class Missing(Exception):
    """This kernel has it not."""


def way(function):
    """What is called with both ends of a connection."""
    WAYS[function.__name__] = function
    return function


def talk(client, server, times=30):
    """Questions and answers."""
    for _turn in range(times):
        client.sendall(b"question")
        server.recv(100)
        server.sendall(b"answer")
        client.recv(100)


@way
def ordinary(client, server):
    talk(client, server)


@way
def spliced(client, server):
    talk(client, server)
    reader, writer = os.pipe()
    client.sendall(b"x" * 100)
    os.splice(server.fileno(), writer, 100)
    os.close(reader)
    os.close(writer)


@way
def sent_by_splice(client, server):
    """To a socket: that works."""
    reader, writer = os.pipe()
    for _turn in range(30):
        os.write(writer, b"x" * 100)
        os.splice(reader, client.fileno(), 100)
        server.recv(100)
        talk(client, server, 1)
    os.close(reader)
    os.close(writer)


@way
def waitall(client, server):
    talk(client, server)
    client.sendall(b"x" * 100)
    server.recv(100, socket.MSG_WAITALL)


@way
def peeked(client, server):
    for _turn in range(30):
        client.sendall(b"x" * 100)
        server.recv(100, socket.MSG_PEEK)
        talk(client, server, 1)


@way
def low_water(client, server):
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2)
    talk(client, server)


@way
def urgent(client, server):
    talk(client, server)
    client.send(b"!", socket.MSG_OOB)
    talk(client, server, 1)


@way
def zero_copy(client, server):
    talk(client, server)
    client.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    client.send(b"x" * 100, MSG_ZEROCOPY)
    server.recv(100)


@way
def peek_offset(client, server):
    try:
        server.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    except OSError as error:
        raise Missing from error
    talk(client, server)


@way
def timestamps(client, server):
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
    talk(client, server)


@way
def timestamping(client, server):
    client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 1 << 1 | 1 << 4)
    talk(client, server)


@way
def kernel_tls(client, server):
    """Without keys it already is one; the kernel takes plain data until it gets them."""
    try:
        client.setsockopt(IPPROTO_TCP, TCP_ULP, b"tls")
    except FileNotFoundError as error:
        raise Missing from error
    talk(client, server)


def _talk_by_ring(client, server, flags):
    if uring.missing():
        raise Missing
    with uring.Ring() as ring:
        for _turn in range(30):
            ring.send(client, b"question", 1, flags)
            ring.wait(1)
            server.recv(100)
            server.sendall(b"answer")
            client.recv(100)


@way
def ring(client, server):
    """Sends by io_uring."""
    _talk_by_ring(client, server, 0)


@way
def ring_waitall(client, server):
    """The same, of all or nothing."""
    _talk_by_ring(client, server, socket.MSG_WAITALL)


@way
def ring_zero_copy(client, server):
    """Sends by io_uring without a copy."""
    if uring.without_zero_copy():
        raise Missing
    talk(client, server)
    with uring.Ring() as ring:
        ring.send_zero_copy(client, b"question", 1)
        ring.wait(2)
    server.recv(100)


@way
def interrupted(client, server):
    """A signal while recv blocks. Python calls recv again after it."""
    talk(client, server)
    reader = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: client.sendall(b"after the signal"))
    thread = threading.Thread(target=_kick, args=(reader,))
    thread.start()
    server.recv(100)
    thread.join()
    signal.signal(signal.SIGUSR1, before)


def _kick(reader):
    wait_until_in_recv(str(threading.main_thread().native_id))
    signal.pthread_kill(reader, signal.SIGUSR1)


def wait_until_in_recv(thread):
    """Until a thread of this process sleeps in recv; what it was in is the first word of ``syscall``."""
    number = {"x86_64": "45", "aarch64": "207"}[os.uname().machine]
    while True:
        with open(f"/proc/self/task/{thread}/syscall", encoding="ascii") as call:
            if call.read().split()[0] == number:
                return
        time.sleep(0.001)


@way
def two_slept(client, server):
    """Two threads in recv at once."""
    talk(client, server)
    threads = [threading.Thread(target=server.recv, args=(100,)) for _reader in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        wait_until_in_recv(str(thread.native_id))
    client.sendall(b"for one")
    _until(lambda: sum(thread.is_alive() for thread in threads) == 1)
    client.sendall(b"for the other")
    for thread in threads:
        thread.join()


def _until(condition):
    while not condition():
        time.sleep(0.001)


@way
def taken_in_turns(client, server):
    """Two threads, one after the other."""
    for _turn in range(15):
        thread = threading.Thread(target=talk, args=(client, server, 2))
        thread.start()
        thread.join()


@way
def killed_in_recv(client, server):
    """A process that a signal ends while it waits in recv."""
    talk(client, server)
    child = os.fork()
    if child == 0:
        server.recv(100)
        os._exit(0)
    _until(lambda: _asleep(child))
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)


def _asleep(child):
    with open(f"/proc/{child}/syscall", encoding="ascii") as call:
        return call.read().split()[0] in ("45", "207")


@way
def idle(_client, _server):
    """A connection on which nothing is said."""


@way
def one_way(client, server):
    """Small messages, which TCP carries as fast."""
    client.settimeout(30)
    thread = threading.Thread(target=_drain, args=(server,))
    thread.start()
    for _message in range(2000):
        client.sendall(b"x" * 100)
    client.shutdown(socket.SHUT_WR)
    thread.join()


def _drain(server):
    while server.recv(65536):
        pass


def pair(family, address):
    listener = socket.create_server((address, 0), family=family)
    client = socket.create_connection(listener.getsockname()[:2])
    return listener, client, listener.accept()[0]


def main():
    with contextlib.ExitStack() as kept:
        for name, function in WAYS.items():
            ends = pair(socket.AF_INET, "127.0.0.1")
            for each in ends:
                kept.enter_context(each)
            port = ends[0].getsockname()[1]
            try:
                function(*ends[1:])
            except Missing:
                port = 0
                for each in ends:
                    each.close()
            print(name, port, flush=True)
        for name, family, address in (("v6", socket.AF_INET6, "::1"), ("other_loopback", socket.AF_INET, "127.9.9.9")):
            ends = pair(family, address)
            for each in ends:
                kept.enter_context(each)
            talk(*ends[1:])
            print(name, ends[0].getsockname()[1], flush=True)
        print("done 0", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
