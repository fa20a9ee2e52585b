# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports whose connections gain nothing are left alone, and tried again."""

from __future__ import annotations

import struct

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from support.datapath import read_exactly

AFTER = 8
TRY_ONE_IN = 64


def exchange(lab, listener, times: int) -> None:
    """A connection with so many questions and answers."""
    client = lab.connect(listener)
    server = listener.accept()[0]
    for _turn in range(times):
        client.sendall(b"question")
        assert read_exactly(server, 8) == b"question"
        server.sendall(b"answer")
        assert read_exactly(client, 6) == b"answer"
    client.close()
    server.close()


def record(lab, listener) -> layout.Port:
    with libbpf.Map.open_pin(str(lab.redirection.pin_dir / "ports")) as ports:
        return layout.decode_port(ports.lookup(struct.pack("=I", listener.getsockname()[1])))


def added(lab) -> int:
    return lab.redirection.events("socket_added") // 2


def test_a_port_with_one_exchange_a_connection_is_left_alone(lab):
    lab.redirection.set(leave_after=AFTER)
    listener = lab.listener()
    for _each in range(AFTER + 10):
        exchange(lab, listener, 1)
    assert added(lab) == AFTER
    assert lab.redirection.events("skip_vain") == 10
    found = record(lab, listener)
    assert (found.connections, found.brief, found.left_alone, found.worth) == (AFTER, AFTER, 10, -AFTER)
    assert found.messages == 2 * AFTER


def test_it_is_tried_again_and_taken_back(lab):
    lab.redirection.set(leave_after=AFTER)
    listener = lab.listener()
    for _each in range(AFTER):
        exchange(lab, listener, 1)
    for _each in range(TRY_ONE_IN - 1):
        exchange(lab, listener, 1)
    assert added(lab) == AFTER
    exchange(lab, listener, 200)
    assert added(lab) == AFTER + 1, "one connection in so many is tried"
    exchange(lab, listener, 1)
    assert added(lab) == AFTER + 2, "it was worth while"


def test_there_is_room_for_another_port_however_many_there_were(lab):
    with libbpf.Map.open_pin(str(lab.redirection.pin_dir / "ports")) as ports:
        nothing = bytes(ports.info.value_size)
        for number in range(1, ports.info.max_entries + 1):
            ports.update(struct.pack("=I", 65535 + number), nothing)
    listener = lab.listener()
    exchange(lab, listener, 1)
    assert record(lab, listener).connections == 1


def test_what_brief_connections_say_does_not_outweigh_a_busy_one(lab):
    lab.redirection.set(leave_after=AFTER)
    listener = lab.listener()
    client = lab.connect(listener)
    server = lab.keep(listener.accept()[0])
    for _turn in range(10):
        for _each in range(AFTER - 1):
            exchange(lab, listener, 1)
        for _message in range(64):
            client.sendall(b"question")
            read_exactly(server, 8)
            server.sendall(b"answer")
            read_exactly(client, 6)
    assert lab.redirection.events("skip_vain") == 0


def test_other_ports_are_not_concerned(lab):
    lab.redirection.set(leave_after=1)
    first, second = lab.listener(), lab.listener()
    exchange(lab, first, 1)
    exchange(lab, first, 1)
    exchange(lab, second, 1)
    assert added(lab) == 2
    assert lab.redirection.events("skip_vain") == 1


def test_never(lab):
    lab.redirection.set(leave_after=0)
    listener = lab.listener()
    for _each in range(100):
        exchange(lab, listener, 1)
    assert added(lab) == 100
