# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a socket of the map says of bytes that came by TCP, with `receive` attached."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
import time

import pytest
from support.datapath import read_exactly


def unread(sock):
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]


def wait_readable(sock):
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    assert poll.poll(10_000) == [(sock.fileno(), select.POLLIN)]


def pair_by_tcp(lab, mode):
    """A pair in the map whose next bytes go by TCP."""
    lab.redirection.set(mode=mode if mode == "observe" else "enforce")
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
    deadline = time.monotonic() + 10
    while unread(server) < 150 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert unread(server) == 150
    assert read_exactly(server, 150) == b"r" * 100 + b"t" * 50
    assert unread(server) == 0
