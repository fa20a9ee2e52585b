# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends: RST, linger, close with data unread, death of a process."""

import os
import signal
import socket
import time

from .. import libc
from ..app import (
    Process,
    Task,
    events,
    eventually,
    fill,
    pattern,
    read_all,
    read_all_polled,
    read_exactly,
    readable,
    reset,
    small_buffers,
)
from ..case import ALL, BOTH, Limit, case

#: Redirected data that nobody has read are not TCP's: closing on them ends the stream instead of resetting it.
_NO_RESET = "close-unread"


@case(ALL)
def close_right_after_send(net, log):
    """Send and close at once, a reader that starts later: it gets every byte, then the end."""
    listener = net.listen()
    for index in range(net.scaled(60, 20)):
        client, server = net.pair(listener=listener)
        data = pattern((1, 100, 70000, 300000)[index % 4], index)
        writer = Task(lambda sock=client, message=data: (sock.sendall(message), sock.close()))
        if index % 3 == 0:
            time.sleep(0.002)
        log(f"server read {index}", read_all(server) == data)
        writer.result()
        server.close()


@case(BOTH)
def close_many_small_unread(net, log):
    """Many small messages, closed before the first is read."""
    client, server = net.pair()
    for index in range(300):
        client.sendall(b"%04d" % index)
    client.close()
    time.sleep(0.05)
    log("server read", read_all(server))
    log("events at end", events(server))


@case(BOTH)
def reset_idle(net, log):
    """RST on a connection with nothing under way."""
    client, server = net.pair()
    client.sendall(b"x")
    log("server read", server.recv(10))
    reset(client)
    log("readable", readable(server))
    log("events", events(server))
    log.call("server read again", server.recv, 10)
    log.call("server read a third time", server.recv, 10)
    log.call("server sends", server.send, b"x", socket.MSG_NOSIGNAL)


@case(BOTH)
def reset_with_unread(net, log):
    """RST while the other end has not read what was sent before it."""
    client, server = net.pair()
    client.sendall(b"unread")
    reset(client)
    log("readable", readable(server))
    log("events", events(server))
    log.call("server read", server.recv, 100)
    log.call("server read again", server.recv, 100)
    log.call("server read a third time", server.recv, 100)


@case(
    BOTH,
    limit=Limit(
        _NO_RESET, {"client events": ["POLLIN", "POLLOUT", "POLLRDHUP"], "client read": "b''", "client sends": 1}
    ),
)
def close_with_unread(net, log):
    """Close with data unread: TCP answers the sender with a RST."""
    client, server = net.pair()
    client.sendall(b"never read")
    log("arrived", readable(server))
    server.close()
    log("client readable", readable(client))
    log("client events", events(client))
    log.call("client read", client.recv, 100)
    log.call("client sends", client.send, b"x", socket.MSG_NOSIGNAL)


@case(BOTH, limit=Limit(_NO_RESET, {"client read": "b''"}))
def close_with_partly_read(net, log):
    """Close with a message read in part."""
    client, server = net.pair()
    client.sendall(b"0123456789")
    log("server read", server.recv(4))
    server.close()
    log("client readable", readable(client))
    log.call("client read", client.recv, 100)


@case(BOTH, limit=Limit(_NO_RESET, {"client read again": "b''"}))
def close_with_answer_sent_and_data_unread(net, log):
    """The server answers and closes with data unread, as a server that refuses an upload does."""
    client, server = net.pair()
    client.sendall(b"header")
    log("server read", server.recv(6))
    client.sendall(b"body that nobody reads")
    log("arrived", readable(server))
    server.sendall(b"413 too large")
    server.close()
    log("client readable", readable(client))
    log.call("client read", client.recv, 100)
    log.call("client read again", client.recv, 100)


@case(BOTH)
def send_after_peer_closed(net, log):
    """Sending to a closed peer: taken once, then EPIPE, with a RST in between."""
    client, server = net.pair()
    client.sendall(b"x")
    log("server read", server.recv(1))
    server.close()
    log("client end", client.recv(1))
    log.call("first send", client.send, b"y", socket.MSG_NOSIGNAL)
    log("reset arrived", eventually(lambda: "POLLERR" in events(client) or "POLLHUP" in events(client)))
    log("events", events(client))
    log.call("second send", client.send, b"z", socket.MSG_NOSIGNAL)
    log.call("read", client.recv, 1)


@case(BOTH, redirects=None)
def send_first_after_peer_closed(net, log):
    """The first message of a direction is sent to a peer that has already closed."""
    client, server = net.pair()
    server.close()
    log("client end", client.recv(1))
    log.call("first send", client.send, b"y", socket.MSG_NOSIGNAL)
    log("reset arrived", eventually(lambda: "POLLHUP" in events(client)))
    log.call("second send", client.send, b"z", socket.MSG_NOSIGNAL)


@case(BOTH, limit=Limit("blocked-recv", {"reader got": "EAGAIN"}))
def reset_wakes_blocked_reader(net, log):
    """RST ends the peer's blocked recv with ECONNRESET."""
    client, server = net.pair()
    client.sendall(b"x")
    log("server read", server.recv(1))
    reader = Task(server.recv, 10)
    log("blocks", reader.blocked())
    reset(client)
    log.call("reader got", reader.result, 10)


@case(BOTH)
def close_wakes_blocked_reader(net, log):
    """close of the peer ends a blocked recv with the end of the stream."""
    client, server = net.pair()
    client.sendall(b"x")
    log("server read", server.recv(1))
    reader = Task(server.recv, 10)
    log("blocks", reader.blocked())
    client.close()
    log("reader got", reader.result(10))


@case(BOTH, bound=60)
def reset_wakes_blocked_writer(net, log):
    """The reader resets the connection under a blocked writer."""
    client, server = net.pair()
    small_buffers(client, server)
    log("writer blocks", fill(client)[1])
    writer = Task(client.send, b"x" * 100000, socket.MSG_NOSIGNAL)
    log("blocks", writer.blocked())
    reset(server)
    log.call("writer got", writer.result, 20)
    log.call("next send", client.send, b"x", socket.MSG_NOSIGNAL)


@case(BOTH)
def linger_sends_all(net, log):
    """SO_LINGER with a timeout: close returns and the reader gets all."""
    client, server = net.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, libc.linger(True, 10))
    writer = Task(lambda: (client.sendall(pattern(1 << 20)), client.close()))
    log("server read", read_all(server))
    writer.result(15)


@case(BOTH)
def killed_process(net, log):
    """SIGKILL of a process with a live connection: the peer reads what was sent, then the end."""
    listener = net.listen()
    told, tells = os.pipe()

    def victim():
        sock = net.connect(listener)
        sock.sendall(pattern(5000))
        os.write(tells, sock.recv(1))
        signal.pause()

    child = Process(victim)
    os.close(tells)
    server = listener.accept()[0]
    log("server read", read_exactly(server, 5000))
    server.sendall(b"!")
    log("victim read", os.read(told, 10))
    os.kill(child.pid, signal.SIGKILL)
    log("exit", child.exit_code())
    log("server end", server.recv(10))


@case(BOTH, limit=Limit(_NO_RESET, {"server end": "b''"}))
def killed_with_unread(net, log):
    """SIGKILL of a process that had data unread: the peer's next calls fail as on TCP."""
    listener = net.listen()

    def victim():
        sock = net.connect(listener)
        sock.sendall(b"here")
        signal.pause()

    child = Process(victim)
    server = listener.accept()[0]
    log("server read", server.recv(4))
    server.sendall(b"unread")
    time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    log("exit", child.exit_code())
    log("readable", readable(server))
    log.call("server end", server.recv, 10)


@case(BOTH)
def both_close_at_once(net, log):
    """Both ends send and close at the same time, a hundred times; each reads the other's bytes to the end first."""
    listener = net.listen()

    def end(sock, data):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        read = read_all_polled(sock)
        sock.close()
        return read

    right = 0
    for index in range(100):
        client, server = net.pair(listener=listener)
        tasks = [Task(end, client, pattern(1000, index % 5)), Task(end, server, pattern(70000, index % 5))]
        right += tasks[0].result() == pattern(70000, index % 5)
        right += tasks[1].result() == pattern(1000, index % 5)
    log("right", right)


@case(BOTH)
def blocked_writer_closes(net, log):
    """A writer fills all buffers and closes: the reader that starts a second later gets all of it promptly."""
    client, server = net.pair()
    small_buffers(client, server)
    sent, blocked = fill(client)
    log("writer blocked", blocked)
    client.close()
    time.sleep(1)
    read = read_all(server)
    log("server read all", len(read) == sent)
    log("right", read == pattern(sent))
