# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections from outside, over a veth pair: the proxy gets them, with the destination that they had."""

from __future__ import annotations

import contextlib
import socket

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import netns as namespaces
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from support.interception import Namer, end_of, told
from support.netns import WIRE, netns, wire

PORT, LISTENER = 80, 15001
HOST = WIRE[0]


class Outside:
    """A namespace with a proxy and a server, and one from which programs connect."""

    def __init__(self, intercepted, host, world) -> None:
        self.intercepted, self.host, self.world = intercepted, host, world

    def proxy(self, address: str = "::", shared: bool = False) -> Namer:
        with self.host.entered(), self.intercepted.as_proxy():
            return self.intercepted.keep(Namer(address, LISTENER, shared=shared))

    def server(self, address: str) -> Namer:
        """It has the port; a connection that nobody intercepts gets there."""
        with self.host.entered():
            return self.intercepted.keep(Namer(address, PORT))

    def rule(self, port: int = LISTENER, **values) -> None:
        with self.host.entered():
            cookie = namespaces.cookie()
        self.intercepted.write(self.intercepted.rule(port, inbound=((PORT, PORT),), netns=cookie, **values))

    def ask(self, address: str, local: bool = False) -> list:
        """What a program from outside, or one on the host itself, is told by whom it gets to."""
        with (self.host if local else self.world).entered():
            client = socket.create_connection((address, PORT), timeout=20)
        with client:
            assert end_of(client.getpeername()) == f"{address} {PORT}"
            return told(client)

    def counts(self) -> dict:
        return {name: count for name, count in self.intercepted.counts(1).items() if count}


@pytest.fixture
def outside(intercepted):
    with netns() as host, netns() as world, contextlib.ExitStack() as stack:
        wire(host, world)
        program = stack.enter_context(libbpf.get(str(intercepted.pin_dir / "inbound")))
        target = stack.enter_context(attachments.opened(hooks.NETNS, f"/run/netns/{host.name}"))
        stack.enter_context(libbpf.create_link(program, target, hooks.SK_LOOKUP.attach_type))
        yield Outside(intercepted, host, world)


def by_proxy(address: str) -> list:
    """It is told by SO_ORIGINAL_DST and by its socket's name."""
    return [f"{address} {PORT}"] * 2


def by_server(address: str) -> list:
    return ["-", f"{address} {PORT}"]


def test_the_proxy_gets_them_and_the_server_those_of_the_host_itself(outside):
    for address in HOST:
        outside.server(address)
        assert outside.ask(address) == by_server(address)
    outside.rule()
    outside.proxy()
    for address in HOST:
        assert outside.ask(address) == by_proxy(address)
        assert outside.ask(address, local=True) == by_server(address)
    assert outside.counts() == {"inbound": 2, "answered": 2}


def test_a_proxy_at_its_own_address(outside):
    outside.rule()
    for address, own in zip(HOST, ("127.0.0.1", "::1")):
        outside.proxy(own)
        assert outside.ask(address) == by_proxy(address)


@pytest.mark.parametrize("direct", [False, True], ids=["refuse", "direct"])
def test_without_a_proxy_they_are_refused_or_the_server_gets_them(outside, direct):
    outside.rule(direct_when_down=direct)
    for address in HOST:
        outside.server(address)
    for address in HOST:
        if direct:
            assert outside.ask(address) == by_server(address)
        else:
            with pytest.raises(ConnectionRefusedError):
                outside.ask(address)
        with contextlib.closing(outside.proxy()):
            assert outside.ask(address) == by_proxy(address)
    assert outside.counts() == {"direct" if direct else "turned_away": 2, "inbound": 2, "answered": 2}


def test_of_several_listeners_each_may_go(outside):
    """As workers do when their proxy is reloaded: there is always one."""
    outside.rule()
    workers = [outside.proxy(shared=True) for _worker in range(3)]
    for _turn in range(4):
        workers.pop(0).close()
        workers.append(outside.proxy(shared=True))
        for address in HOST:
            assert outside.ask(address) == by_proxy(address)


def test_a_proxy_of_another_namespace_gets_nothing(outside):
    outside.rule()
    with outside.world.entered(), outside.intercepted.as_proxy():
        outside.intercepted.keep(Namer("::", LISTENER))
    with pytest.raises(ConnectionRefusedError):
        outside.ask(HOST[0])


@pytest.mark.parametrize(("kind", "answers"), [("haproxy", {"answered": 1}), ("nginx", {}), ("envoy", {"answered": 2})])
def test_a_real_proxy_forwards_them_to_the_server_that_has_the_port(outside, running, kind, answers):
    """Each asks where to as for connections from the host; its own connections get to the server.

    :param answers: how often it was by SO_ORIGINAL_DST, of a connection over IPv4 and one over IPv6.
    """
    outside.rule(running.ports[LISTENER])
    with outside.host.entered():
        getattr(running, kind)()
    for address in HOST:
        with contextlib.closing(outside.server(address)) as server:
            assert outside.ask(address) == by_server(address)
            assert server.peers == [address], "not the client's: it was the proxy that connected"
    assert outside.counts() == {"inbound": 2, **answers}


def test_who_traces_is_told(outside, trace):
    address = HOST[0]
    outside.rule()
    with pytest.raises(ConnectionRefusedError):
        outside.ask(address)
    outside.proxy()
    outside.ask(address)
    (refused, handed, answered) = trace.events()
    asked = End(address, PORT)
    assert refused[0] == "turned_away"
    assert refused[2:] == (End("127.0.0.1", LISTENER), asked)
    assert (handed[0], *handed[2:]) == ("inbound", End("127.0.0.1", LISTENER), asked)
    assert answered == ("answered", handed[1], asked, asked)
    assert handed[1].address == WIRE[1][0]
