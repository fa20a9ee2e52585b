# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One socket, several connections, as connect(AF_UNSPEC) allows: nothing of an earlier one may show in a later one."""

import socket

from .. import libc
from ..app import Task, pattern, quiet, read_exactly, readable, reset, shown
from ..case import BOTH, Limit, case

_OLD = b"bytes of the first connection"


def _reads(value):
    """Dissolved when its connection was gone already, it may still read what that had brought."""
    return Limit("dissolved-read", {"read while dissolved": (shown(value), "EAGAIN")})


def _next_connection(net, log, client, listener):
    """Connect the dissolved ``client`` to ``listener`` and see that only this connection's bytes arrive."""
    log.call("read while dissolved", client.recv, 100, socket.MSG_DONTWAIT)
    client, server = net.pair(client, listener)
    log("nothing of the first", quiet(client, 0.1))
    client.setblocking(False)
    log.call("read before the second wrote", client.recv, 100)
    client.setblocking(True)
    server.sendall(b"second")
    log("readable", readable(client))
    log("read", client.recv(100))
    client.sendall(b"answer")
    log("server read", server.recv(100))
    server.close()
    log("end", client.recv(100))


@case(BOTH)
def dissolved_with_unread(net, log):
    """Bytes unread when the socket is dissolved are not read on its next connection."""
    listener = net.listen()
    client, server = net.pair()
    server.sendall(_OLD)
    log("arrived", readable(client))
    libc.disconnect(client)
    log.call("server end", server.recv, 100)
    _next_connection(net, log, client, listener)


@case(BOTH)
def dissolved_with_partly_read(net, log):
    """The same when some of a big message was read, and the writer has more under way."""
    listener = net.listen()
    client, server = net.pair()
    server.setblocking(False)
    server.send(pattern(200000))
    log("read some", len(read_exactly(client, 1000)))
    server.send(pattern(200000))
    libc.disconnect(client)
    log("server sees it", readable(server))
    _next_connection(net, log, client, listener)


@case(BOTH)
def dissolved_after_peer_closed(net, log):
    """The peer has closed already."""
    listener = net.listen()
    client, server = net.pair()
    server.sendall(_OLD)
    server.close()
    log("arrived", readable(client))
    log("first byte", client.recv(1))
    libc.disconnect(client)
    _next_connection(net, log, client, listener)


@case(BOTH)
def dissolved_half_closed(net, log):
    """The socket has said that it sends no more."""
    listener = net.listen()
    client, server = net.pair()
    server.sendall(_OLD)
    log("arrived", readable(client))
    client.shutdown(socket.SHUT_WR)
    log("server end", server.recv(1))
    libc.disconnect(client)
    _next_connection(net, log, client, listener)


@case(BOTH, limit=_reads(_OLD[2:]))
def dissolved_after_both_closed(net, log):
    """Both directions had ended: the connection is gone, what it brought is there to be read."""
    listener = net.listen()
    client, server = net.pair()
    server.sendall(_OLD)
    server.close()
    log("arrived", readable(client))
    log("first byte", client.recv(1))
    client.shutdown(socket.SHUT_WR)
    log("second byte", client.recv(1))
    libc.disconnect(client)
    _next_connection(net, log, client, listener)


@case(BOTH, limit=_reads(_OLD))
def dissolved_after_reset(net, log):
    """The peer has reset the connection."""
    listener = net.listen()
    client, server = net.pair()
    server.sendall(_OLD)
    log("arrived", readable(client))
    reset(server)
    libc.disconnect(client)
    _next_connection(net, log, client, listener)


@case(BOTH)
def accepted_socket_connects(net, log):
    """An accepted socket is dissolved with bytes unread and becomes a client elsewhere."""
    listener, other = net.listen(), net.listen()
    client, server = net.pair(None, listener)
    client.sendall(_OLD)
    log("arrived", readable(server))
    libc.disconnect(server)
    log.call("client end", client.recv, 100)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _next_connection(net, log, server, other)


@case(BOTH)
def dissolved_socket_listens(net, log):
    """A client that was dissolved with bytes unread listens: those it accepts see only their own bytes."""
    client, server = net.pair()
    server.sendall(_OLD)
    log("arrived", readable(client))
    libc.disconnect(client)
    client.bind((net.family.client_host, 0))
    client.listen()
    other = net.client_socket()
    other.connect(client.getsockname())
    accepted, _peer = client.accept()
    log("nothing of the first", quiet(accepted, 0.1))
    other.sendall(b"second")
    log("read", accepted.recv(100))


@case(BOTH, bound=60)
def dissolved_under_fire(net, log):
    """Again and again: the peer sends all the while, the socket is dissolved and connected to the next server."""
    listeners = [net.listen(), net.listen()]
    client, right = net.client_socket(), 0

    def flood(server, index):
        server.settimeout(5)
        try:
            while True:
                server.sendall(bytes([index % 256]) * 5000)
        except OSError:
            server.close()

    rounds = net.scaled(150, 20)
    for index in range(rounds):
        client, server = net.pair(client, listeners[index % 2])
        writer = Task(flood, server, index)
        right += set(read_exactly(client, 20000 + index, 3001)) == {index % 256}
        libc.disconnect(client)
        if index % 3 == 0:
            writer.result()
    log("right", right == rounds)
