# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""shutdown(): one direction ends, the other may go on."""

import socket
import time

from ..app import (
    Process,
    Task,
    events,
    eventually,
    pattern,
    read_all,
    read_exactly,
    readable,
)
from ..case import ALL, BOTH, Limit, case


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
    log("server events", events(server))
    server.sendall(b"one")
    server.sendall(pattern(100000))
    server.close()
    log("client read", read_all(client))


@case(BOTH)
def shutdown_read(net, log):
    """SHUT_RD: the reader sees the end, the peer's sends are still taken."""
    client, server = net.pair()
    server.shutdown(socket.SHUT_RD)
    log("server read", server.recv(10))
    log("events", events(server))
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


@case(BOTH)
def end_reported_after_data(net, log):
    """Events while data and the end of the stream wait together."""
    client, server = net.pair()
    client.sendall(b"data")
    log("arrived", readable(server))
    client.shutdown(socket.SHUT_WR)
    log("end arrived", eventually(lambda: "POLLRDHUP" in events(server)))
    log("events", events(server))
    log("read in part", server.recv(2))
    log("events after a part", events(server))
    log("read the rest", server.recv(2))
    log("events at the end", events(server))
    log("end", server.recv(2))
    server.close()
