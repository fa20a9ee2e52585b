# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the programs tell of each connection, to whoever traces, and only then."""

from __future__ import annotations

import errno
import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End, Event
from support.interception import FAR4, FAR6, told
from support.tracing import records


@pytest.mark.parametrize("asked", [FAR4, FAR6, f"::ffff:{FAR4}"], ids=["ipv4", "ipv6", "v4-mapped"])
def test_the_way_of_a_connection(intercepted, trace, asked):
    proxy = intercepted.namer("::")
    intercepted.write(intercepted.rule(proxy.port))
    client = intercepted.connect(asked, 8080)
    told(client)
    here, there = ("::1", FAR6) if asked == FAR6 else ("127.0.0.1", FAR4)
    way = (End(here, client.getsockname()[1]), End(here, proxy.port), End(there, 8080))
    found = trace.read()
    assert [(each.client, each.to, each.asked) for each in found] == [way] * 3
    assert [each.event for each in found] == [Event.REWRITTEN, Event.CLAIMED, Event.ANSWERED]
    assert [each.slot for each in found] == [1] * 3
    assert [each.time for each in found] == sorted(each.time for each in found)
    assert found[0].pid == threading.get_native_id()
    assert found[2].pid == proxy.thread_id != found[0].pid
    assert found[0].comm == Path("/proc/thread-self/comm").read_text().strip()


def test_what_does_not_go_to_the_proxy(intercepted, trace):
    proxy = intercepted.namer()
    port, end = proxy.port, End("127.0.0.1", proxy.port)
    rule = {"cidrs": ("127.0.0.64/26",), "direct_when_down": True}
    intercepted.write(intercepted.rule(port, **rule))

    def refused(address: str, number: int, *options) -> int:
        client = intercepted.socket()
        for option in options:
            client.setsockopt(*option)
        with intercepted.as_app():
            return client.connect_ex((address, number))

    assert refused("127.0.0.1", 9) == errno.ECONNREFUSED
    assert trace.events() == [("passed", None, End("127.0.0.1", 9), End("127.0.0.1", 9))]
    assert refused("127.0.0.77", 9, (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")) == errno.ECONNREFUSED
    assert trace.events() == [("left_alone", None, End("127.0.0.77", 9), End("127.0.0.77", 9))]

    client = intercepted.connect(*end)  # to the proxy by its own name
    source = End("127.0.0.1", client.getsockname()[1])
    told(client)
    assert trace.events() == [("passed", None, end, end), ("unclaimed", source, end, end)]
    with intercepted.as_proxy():
        assert intercepted.keep(socket.socket()).connect_ex(end) == errno.EPERM
    assert trace.events() == [("looped", None, end, end)]

    proxy.close()
    assert refused("127.0.0.77", 9) == errno.ECONNREFUSED
    assert trace.events() == [("direct", None, End("127.0.0.77", 9), End("127.0.0.77", 9))]
    intercepted.write(intercepted.rule(port, cidrs=rule["cidrs"]))
    assert refused("127.0.0.77", 9) == errno.ECONNREFUSED
    ((first, client, *way), (second, *same)) = trace.events()
    assert (first, second, same) == ("rewritten", "withdrawn", [client, *way])
    assert (client.address, way) == ("127.0.0.1", [end, End("127.0.0.77", 9)])


def test_questions_to_name_servers(intercepted, trace):
    dns = (End("127.0.0.1", 5353),)
    intercepted.write(intercepted.rule(9, dns=dns))
    client = intercepted.socket(kind=socket.SOCK_DGRAM)
    with intercepted.as_app():
        for server in ("203.0.113.53", "203.0.113.54"):
            client.sendto(b"x", (server, 53))
    first, second = End("203.0.113.53", 53), End("203.0.113.54", 53)
    assert trace.events() == [("dns", None, dns[0], first), ("dns_passed", None, second, second)]


def test_nothing_is_written_unless_somebody_traces(intercepted):
    with records(intercepted.pin_dir) as trace:
        intercepted.write(intercepted.rule(intercepted.namer().port))
        for moment in (None, 1, 0):  # never asked; until a moment long ago; asked and turned off
            if moment is not None:
                trace.ask()
                trace.ask(0)
                trace.ask(moment)
            told(intercepted.connect(FAR4, 80))
            assert trace.read() == []
        trace.ask()
        told(intercepted.connect(FAR4, 80))
        assert len(trace.read()) == 3
    assert intercepted.counts(1)["claimed"] == 4


def test_what_finds_no_room_is_counted_and_connections_go_on(intercepted_with):
    with intercepted_with(intercept_ring=4096) as intercepted, records(intercepted.pin_dir) as trace:
        trace.ask()
        intercepted.write(intercepted.rule(intercepted.namer().port))
        for number in range(20):
            assert told(intercepted.connect(FAR4, 1 + number))[0] == f"{FAR4} {1 + number}"
        shown = trace.events()
        assert trace.untold() > 0
        assert len(shown) + trace.untold() == 3 * 20
        assert {event for event, *_ends in shown} == {"rewritten", "claimed", "answered"}
