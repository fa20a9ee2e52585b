# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that are saved and restored by TCP_REPAIR, as CRIU does: the peer must not notice, nor a byte be lost."""

import fcntl
import socket
import struct
import termios

from ..app import pattern, read_exactly, readable
from ..case import BOTH, Limit, case

_REPAIR, _QUEUE, _QUEUE_SEQ, _OPTIONS, _TIMESTAMP = 19, 20, 21, 22, 24
_RECEIVED, _SENT = 1, 2
# Kinds of TCP options (RFC 9293, 7323, 2018), and the bits of tcpi_options that say that both ends use them.
_MSS, _SCALE, _SACK, _STAMPS = 2, 3, 4, 8
_HAS_STAMPS, _HAS_SACK, _HAS_SCALE = 1, 2, 4
# struct tcp_info: five bytes, options, the two window scales, then words of which the third is the send MSS
_INFO = struct.Struct("=5xBBx2I2I")


def _tcp(sock, option, *value):
    if value:
        sock.setsockopt(socket.IPPROTO_TCP, option, *value)
        return None
    return sock.getsockopt(socket.IPPROTO_TCP, option)


def _queue(sock, which, request):
    """Where a queue of a socket under repair ends, and what is in it."""
    _tcp(sock, _QUEUE, which)
    held = struct.unpack("i", fcntl.ioctl(sock, request, bytes(4)))[0]
    data = sock.recv(held, socket.MSG_PEEK | socket.MSG_DONTWAIT) if held else b""
    return _tcp(sock, _QUEUE_SEQ) & 0xFFFFFFFF, data


def _options(sock):
    options, scales, _rto, _ato, mss, _received_mss = _INFO.unpack(
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    )
    found = [(_MSS, mss)]
    if options & _HAS_SACK:
        found.append((_SACK, 0))
    if options & _HAS_SCALE:
        found.append((_SCALE, (scales & 15) | (scales >> 4) << 16))
    if options & _HAS_STAMPS:
        found.append((_STAMPS, 0))
    return b"".join(struct.pack("=II", *one) for one in found)


def _save(sock):
    """All that it takes to make the socket once more; the socket is gone then, and the peer was told nothing."""
    _tcp(sock, _REPAIR, 1)
    saved = {
        "ends": (sock.getsockname(), sock.getpeername()),
        "options": _options(sock),
        "timestamp": _tcp(sock, _TIMESTAMP),
        "received": _queue(sock, _RECEIVED, termios.FIONREAD),
        "sent": _queue(sock, _SENT, termios.TIOCOUTQ),
    }
    sock.close()
    return saved


def _restore(net, saved):
    sock = net.client_socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _tcp(sock, _REPAIR, 1)
    for which, name in ((_RECEIVED, "received"), (_SENT, "sent")):
        end, data = saved[name]
        _tcp(sock, _QUEUE, which)
        _tcp(sock, _QUEUE_SEQ, struct.pack("=I", (end - len(data)) % 2**32))
    sock.bind(saved["ends"][0])
    sock.connect(saved["ends"][1])
    _tcp(sock, _OPTIONS, saved["options"])
    _tcp(sock, _TIMESTAMP, saved["timestamp"])
    for which, name in ((_RECEIVED, "received"), (_SENT, "sent")):
        _tcp(sock, _QUEUE, which)
        if saved[name][1]:
            sock.sendall(saved[name][1])
    _tcp(sock, _REPAIR, 0)
    return sock


def _talk(log, name, one, other):
    """Both ways, small and large."""
    for size in (1, 5000, 60000):
        for sender, receiver in ((one, other), (other, one)):
            sender.sendall(pattern(size))
            if read_exactly(receiver, size) != pattern(size):
                log(f"{name}: wrong bytes of {size}", sender is one)
    log(name, "talked")


def _saved(log, net, saved_end):
    client, server = net.pair()
    _talk(log, "before", client, server)
    one, other = (client, server) if saved_end == "client" else (server, client)
    other.sendall(b"not yet read")
    log("arrived", readable(one))
    saved = _save(one)
    log("received", saved["received"][1])
    log("sent", saved["sent"][1])
    one = _restore(net, saved)
    log.call("restored", one.recv, 100, socket.MSG_DONTWAIT)
    _talk(log, "afterwards", one, other)
    other.close()
    log("end", one.recv(100))


#: Who saves a connection asks FIONREAD how much there is to be saved.
_UNSEEN = Limit("fionread", {"received": "b''", "restored": "EAGAIN"}, varies=True, kernels=(None, (6, 17)))


@case(BOTH, limit=_UNSEEN)
def saved_client(net, log):
    """The client's end is saved with bytes unread, and restored."""
    _saved(log, net, "client")


@case(BOTH, limit=_UNSEEN)
def saved_server(net, log):
    """The server's end."""
    _saved(log, net, "server")
