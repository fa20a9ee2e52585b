# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a socket of the map says of bytes that came by TCP, with `receive` attached."""

from __future__ import annotations

import fcntl
import select
import shutil
import socket
import struct
import termios

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import queues
from support.datapath import SOURCE, read_exactly
from support.waiting import wait_for

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVED, SENT = 1, 2
REPAIR_OFF = -1
ACK = 0x10


def unread(sock):
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]


def wait_readable(sock):
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    assert poll.poll(10_000) == [(sock.fileno(), select.POLLIN)]


def pair_by_tcp(lab, mode):
    """A pair in the map whose next bytes go by TCP."""
    client, server = lab.pair()
    lab.redirection.set(mode=mode)
    assert lab.redirection.peers() == 2
    return client, server


@pytest.mark.parametrize("mode", ["observe", "drain"])
def test_fionread_counts_what_came_by_tcp(lab, mode):
    client, server = pair_by_tcp(lab, mode)
    assert unread(server) == 0
    for turn in (1, 2):
        client.sendall(bytes([turn]) * 100)
        wait_readable(server)
        assert unread(server) == 100
        assert read_exactly(server, 60) == bytes([turn]) * 60
        assert unread(server) == 40
        assert read_exactly(server, 40) == bytes([turn]) * 40
        assert unread(server) == 0
    assert lab.redirection.bytes("redirected") == 0


def test_redirected_bytes_and_later_ones_by_tcp_lie_in_one_queue(lab):
    client, server = lab.pair()
    client.sendall(b"r" * 100)
    lab.redirection.set(mode="drain")
    client.sendall(b"t" * 50)
    flow, _peer = lab.redirection.flow(server.getsockname()[1])
    assert flow.state == "drained"
    wait_for(lambda: unread(server) >= 150)
    assert unread(server) == 150
    assert read_exactly(server, 150) == b"r" * 100 + b"t" * 50
    assert unread(server) == 0


def sequence_numbers(sock):
    """What the socket sends next, and what it expects next."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    found = []
    for queue in (SENT, RECEIVED):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
        found.append(sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)
    return found


def checksum(data):
    words = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(client, server, again, data):
    """Send the server a segment as the client's TCP would: ``again`` bytes that it has sent before, then new ones."""
    source, target = client.getsockname(), server.getsockname()
    send, expect = sequence_numbers(client)
    header = [source[1], target[1], (send - again) % 2**32, expect, 5 << 4, ACK, 1024, 0, 0]
    pseudo = socket.inet_aton(source[0]) + socket.inet_aton(target[0]) + struct.pack("!HH", 6, 20 + len(data))
    form = "!HHIIBBHHH"
    header[7] = checksum(pseudo + struct.pack(form, *header) + data)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(struct.pack(form, *header) + data, (target[0], 0))


def spend_the_budget(lab):
    """Two readers that stop hold all of it: what others send stays on TCP, in the map."""
    lab.redirection.set(budget=64 << 10)
    for _each in range(2):
        client, _server = lab.pair()
        client.sendall(bytes(32 << 10))


def receive_some_again(lab, again, fresh):
    """What the server reads of a segment that begins with bytes it has read before."""
    spend_the_budget(lab)
    client, server = lab.pair()
    client.sendall(b"o" * again)
    assert read_exactly(server, again) == b"o" * again
    segment(client, server, again, b"o" * again + b"n" * fresh)
    wait_readable(server)
    return server.recv(1 << 20)


@pytest.mark.parametrize(("again", "fresh"), [(1, 1), (50, 100), (4094, 2), (5000, 5000), (40_000, 2000)])
def test_a_retransmission_with_new_bytes_behind_brings_only_those(lab, again, fresh):
    """As a probe for a lost tail that is merged with the next segment: plain TCP's reader skips what it has."""
    assert receive_some_again(lab, again, fresh) == b"n" * fresh
    assert lab.redirection.counters()["cut"].bytes == again


def test_without_the_cut_bytes_come_twice(lab_with, tmp_path):
    source = tmp_path / "without"
    shutil.copytree(SOURCE.parent, source)
    header = source / "receive.h"
    text = header.read_text()
    assert "return cut_head(skb, again);" in text
    header.write_text(text.replace("return cut_head(skb, again);", "return true;"))
    with lab_with(source=source / SOURCE.name) as lab:
        assert receive_some_again(lab, 50, 100) == b"o" * 50 + b"n" * 100


def test_the_trials_of_the_kernel_do_not_meet_redirection_in_use(lab):
    """They run in any process, also in one whose sockets are redirected."""
    with lab.inside():
        assert queues.one_queue().ok is True
        assert queues.fionread(with_verdict=True).ok is True
    assert lab.redirection.events("socket_added") == 0
    assert lab.redirection.events("skip_kind") > 0, "they were seen, and left alone"
