# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends: half-close, RST, linger, close with data unread, death of a process."""

import os
import select
import signal
import socket
import time

from .. import libc
from ..app import (
    Process,
    Task,
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


def _events(sock, mask=select.POLLIN | select.POLLOUT | select.POLLRDHUP):
    poller = select.poll()
    poller.register(sock, mask)
    names = ("POLLIN", "POLLOUT", "POLLERR", "POLLHUP", "POLLRDHUP")
    ready = dict(poller.poll(0)).get(sock.fileno(), 0)
    return [name for name in names if ready & getattr(select, name)]


@case(ALL)
def half_close_by_client(net, log):
    """The client ends its direction; the server answers at length afterwards."""
    client, server = net.pair()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    log("server read", read_all(server))
    writer = Task(server.sendall, pattern(3 << 20))
    log("client read", read_exactly(client, 3 << 20))
    writer.result()
    log.call("client sends", client.send, b"x", socket.MSG_NOSIGNAL)
    server.close()
    log("client end", client.recv(1))


@case(ALL)
def half_close_by_server(net, log):
    """The server ends its direction first; the client goes on sending."""
    client, server = net.pair()
    server.sendall(b"all I have")
    server.shutdown(socket.SHUT_WR)
    log("client read", read_all(client))
    writer = Task(client.sendall, pattern(3 << 20))
    log("server read", read_exactly(server, 3 << 20))
    writer.result()
    client.close()
    log("server end", server.recv(1))


@case(BOTH, redirects=None)
def half_close_before_any_data(net, log):
    """A direction ended before it carried a byte; the other one starts afterwards."""
    client, server = net.pair()
    client.shutdown(socket.SHUT_WR)
    log("server end", server.recv(10))
    log("server events", _events(server))
    server.sendall(b"one")
    server.sendall(pattern(100000))
    server.close()
    log("client read", read_all(client))


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
    log("events at end", _events(server))


@case(BOTH)
def reset_idle(net, log):
    """RST on a connection with nothing under way."""
    client, server = net.pair()
    client.sendall(b"x")
    log("server read", server.recv(10))
    reset(client)
    log("readable", readable(server))
    log("events", _events(server))
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
    log("events", _events(server))
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
    log("client events", _events(client))
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
    log("reset arrived", eventually(lambda: "POLLERR" in _events(client) or "POLLHUP" in _events(client)))
    log("events", _events(client))
    log.call("second send", client.send, b"z", socket.MSG_NOSIGNAL)
    log.call("read", client.recv, 1)


@case(BOTH, redirects=None)
def send_first_after_peer_closed(net, log):
    """The first message of a direction is sent to a peer that has already closed."""
    client, server = net.pair()
    server.close()
    log("client end", client.recv(1))
    log.call("first send", client.send, b"y", socket.MSG_NOSIGNAL)
    log("reset arrived", eventually(lambda: "POLLHUP" in _events(client)))
    log.call("second send", client.send, b"z", socket.MSG_NOSIGNAL)


@case(BOTH)
def shutdown_read(net, log):
    """SHUT_RD: the reader sees the end, the peer's sends are still taken."""
    client, server = net.pair()
    server.shutdown(socket.SHUT_RD)
    log("server read", server.recv(10))
    log("events", _events(server))
    log.call("client sends", client.send, b"data", socket.MSG_NOSIGNAL)
    log.call("client sends again", client.send, b"data", socket.MSG_NOSIGNAL)
    server.sendall(b"still here")
    log("client read", client.recv(100))


@case(BOTH)
def shutdown_read_with_unread(net, log):
    """SHUT_RD with data waiting: they can still be read."""
    client, server = net.pair()
    client.sendall(b"waiting")
    log("arrived", readable(server))
    server.shutdown(socket.SHUT_RD)
    log("server read", server.recv(100))
    log("server read again", server.recv(100))


@case(BOTH, limit=Limit("blocked-recv", {"reader got": "EAGAIN"}))
def shutdown_wakes_own_reader(net, log):
    """shutdown from another thread ends a blocked recv."""
    client, server = net.pair()
    client.sendall(b"x")
    log("server read", server.recv(1))
    reader = Task(server.recv, 10)
    log("blocks", reader.blocked())
    server.shutdown(socket.SHUT_RDWR)
    log.call("reader got", reader.result, 10)
    log("client read", client.recv(10))


@case(BOTH, limit=Limit("blocked-recv", {"goes on waiting": False, "reader got": "EAGAIN"}))
def shutdown_write_under_own_reader(net, log):
    """A thread waits in recv while another ends the sending side: the reader goes on waiting, and gets the answer."""
    client, server = net.pair()
    client.sendall(b"question")
    log("server read", server.recv(100))
    reader = Task(client.recv, 100)
    log("blocks", reader.blocked())
    client.shutdown(socket.SHUT_WR)
    log("server end", server.recv(100))
    log("goes on waiting", reader.blocked())
    server.sendall(b"answer")
    log.call("reader got", reader.result, 10)


@case(ALL)
def question_half_close_answer(net, log):
    """Question, half-close, answer until the end, by two processes that block, as simple clients do; often."""
    listener = net.listen()
    rounds = 200

    def serve():
        for _index in range(rounds):
            with listener.accept()[0] as sock:
                sock.sendall(read_all(sock)[::-1])

    process = Process(serve)
    right = 0
    for index in range(rounds):
        with net.connect(listener) as sock:
            question = pattern((10, 3000, 100000)[index % 3], index % 4)
            sock.sendall(question)
            sock.shutdown(socket.SHUT_WR)
            right += read_all(sock) == question[::-1]
    log("right", right)
    log("exit", process.exit_code())


@case(BOTH, limit=Limit("blocked-recv", {"last answer": "EAGAIN"}, varies=True))
def half_close_after_answers(net, log):
    """Questions and answers, then a half-close while the server waits; the last answer takes a while."""
    client, server = net.pair()

    def serve():
        for data in iter(lambda: server.recv(100), b""):
            server.sendall(data[::-1])
        time.sleep(0.2)
        server.sendall(b"bye")
        server.close()

    serving = Task(serve)
    for index in range(3):
        client.sendall(b"question %d" % index)
        log(f"answer {index}", client.recv(100))
    time.sleep(0.05)
    client.shutdown(socket.SHUT_WR)
    log.call("last answer", client.recv, 100)
    serving.result()


@case(BOTH)
def send_after_own_shutdown(net, log):
    """EPIPE after SHUT_WR, also when the FIN was acknowledged long ago; the peer sees no byte after the end."""
    client, server = net.pair()
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    log("server read", read_all(server))
    server.sendall(b"acknowledges the FIN")
    log("client read", client.recv(100))
    time.sleep(0.2)  # delayed ACKs are out
    log.call("client sends", client.send, b"too late", socket.MSG_NOSIGNAL)
    log("server sees", server.recv(100))


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

    def victim():
        sock = net.connect(listener)
        sock.sendall(pattern(5000))
        sock.recv(1)
        signal.pause()

    child = Process(victim)
    server = listener.accept()[0]
    log("server read", read_exactly(server, 5000))
    server.sendall(b"!")
    time.sleep(0.05)
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


@case(BOTH)
def end_reported_after_data(net, log):
    """Events while data and the end of the stream wait together."""
    client, server = net.pair()
    client.sendall(b"data")
    log("arrived", readable(server))
    client.shutdown(socket.SHUT_WR)
    log("end arrived", eventually(lambda: "POLLRDHUP" in _events(server)))
    log("events", _events(server))
    log("read in part", server.recv(2))
    log("events after a part", _events(server))
    log("read the rest", server.recv(2))
    log("events at the end", _events(server))
    log("end", server.recv(2))
    server.close()
