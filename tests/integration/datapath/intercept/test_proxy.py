# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy never comes back to itself, and one that is down is dealt with as its rule says."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from support.host import enter, inside
from support.interception import FAR4, original_dst, told

MOST_HOPS = 50


def refusal(intercepted, cgroup, address: str, port: int) -> int:
    """errno of a connection from a cgroup; 0 where it stands."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(cgroup):
        return intercepted.keep(socket.socket(family)).connect_ex((address, port))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::1", "::"])
def test_the_proxy_cannot_reach_its_own_listener(intercepted, address):
    proxy = intercepted.namer("::")
    intercepted.write(intercepted.rule(proxy.port))
    assert refusal(intercepted, intercepted.proxy, address, proxy.port) == errno.EPERM
    assert intercepted.counts(1)["looped"] == 1
    assert refusal(intercepted, intercepted.apps, address, proxy.port) == 0


def test_another_address_is_refused_once_the_listener_was_reached_there(intercepted):
    proxy = intercepted.namer("0.0.0.0")
    intercepted.write(intercepted.rule(proxy.port))
    assert refusal(intercepted, intercepted.proxy, "127.0.0.5", proxy.port) == 0
    assert refusal(intercepted, intercepted.proxy, "127.0.0.5", proxy.port) == errno.EPERM
    assert refusal(intercepted, intercepted.proxy, "127.0.0.6", proxy.port) == 0


def test_the_proxy_itself_is_not_intercepted(intercepted):
    """Also where its cgroup is below that of the programs, or it is told by its user."""
    proxy = intercepted.namer()
    server = intercepted.keep(socket.create_server(("127.0.0.77", 0)))
    port = server.getsockname()[1]
    everything = {"cidrs": ("127.0.0.0/8",)}
    inner = intercepted.apps / "inner"
    inner.mkdir()
    below = {"proxy": os.stat(inner).st_ino, "proxy_level": intercepted.rule(1).apps_level + 1}
    intercepted.write(intercepted.rule(proxy.port, **everything, **below))
    assert told(intercepted.connect("127.0.0.77", port))[0] == f"127.0.0.77 {port}"
    assert refusal(intercepted, inner, "127.0.0.77", port) == 0
    intercepted.keep(server.accept()[0])
    intercepted.write(intercepted.rule(proxy.port, **everything, proxy=0, proxy_user=os.geteuid()))
    assert refusal(intercepted, intercepted.apps, "127.0.0.77", port) == 0
    intercepted.keep(server.accept()[0])
    assert refusal(intercepted, intercepted.apps, "127.0.0.1", proxy.port) == errno.EPERM
    intercepted.write(intercepted.rule(proxy.port, **everything, proxy=0, proxy_user=os.geteuid() + 1))
    assert told(intercepted.connect("127.0.0.77", port))[0] == f"127.0.0.77 {port}"


@pytest.mark.parametrize("inside_proxy", [True, False], ids=["there", "elsewhere"])
def test_what_counts_is_where_a_listener_was_made_and_not_who_accepts(intercepted, inside_proxy):
    """As with a socket unit of systemd, which makes the listener in its own cgroup and hands it to the proxy."""
    with intercepted.as_proxy() if inside_proxy else contextlib.nullcontext():
        listener = intercepted.keep(socket.create_server(("127.0.0.1", 0)))
    port = listener.getsockname()[1]
    intercepted.write(intercepted.rule(port))
    intercepted.connect(FAR4, 80)
    with contextlib.nullcontext() if inside_proxy else intercepted.as_proxy():
        accepted = intercepted.keep(listener.accept()[0])
        assert original_dst(accepted) == (f"{FAR4} 80" if inside_proxy else "-")
    counts = intercepted.counts(1)
    assert (counts["rewritten"], counts["claimed"], counts["answered"]) == (1, inside_proxy, inside_proxy)
    assert refusal(intercepted, intercepted.proxy, "127.0.0.1", port) == errno.EPERM, "the guard asks who connects"
    assert intercepted.pending() == (0 if inside_proxy else 1), "a claim stays until its connection ends"


def forward(listener: socket.socket, cgroup: Path, outcome) -> None:
    """A proxy that goes where its client wanted to go, or else where the client went: until it is refused."""
    enter(cgroup)
    kept = []
    while len(kept) < MOST_HOPS:
        accepted = listener.accept()[0]
        kept.append(accepted)
        known = original_dst(accepted)
        address = (known.split()[0], int(known.split()[1])) if known != "-" else accepted.getsockname()
        onward = socket.socket()
        kept.append(onward)
        refused = onward.connect_ex(address)
        if refused:
            outcome.send((len(kept) // 2, refused))
            return
    outcome.send((len(kept) // 2, 0))


@pytest.mark.parametrize("way", ["intercepted", "by itself"])
def test_a_loop_ends_at_once(intercepted, way):
    """A client asks for the proxy's own port at another address of this host."""
    with intercepted.as_proxy():
        listener = intercepted.keep(socket.create_server(("0.0.0.0", 0)))
    port = listener.getsockname()[1]
    cidrs = ("127.0.0.0/8",) if way == "intercepted" else ()
    intercepted.write(intercepted.rule(port, cidrs=cidrs))
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=forward, args=(listener, intercepted.proxy, theirs))
    child.start()
    try:
        intercepted.connect("127.0.0.9", port)
        assert mine.poll(30)
        hops, refused = mine.recv()
    finally:
        child.kill()
        child.join()
    assert refused == errno.EPERM
    assert hops <= 2
    assert intercepted.counts(1)["looped"] == 1


@pytest.mark.parametrize("direct", [False, True], ids=["refuse", "direct"])
def test_the_proxy_is_down_and_comes_back(intercepted, direct):
    server = intercepted.keep(socket.create_server(("127.0.0.77", 0)))
    asked = server.getsockname()
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port, cidrs=("127.0.0.0/8",), direct_when_down=direct))
    assert told(intercepted.connect(*asked))[0] == f"127.0.0.77 {asked[1]}"
    proxy.close()
    client = intercepted.socket()
    with intercepted.as_app():
        assert client.connect_ex(asked) == (0 if direct else errno.ECONNREFUSED)
    if direct:
        assert client.getpeername() == asked
        intercepted.keep(server.accept()[0])
    assert intercepted.counts(1)["direct"] == int(direct)
    again = intercepted.namer(port=proxy.port)
    assert told(intercepted.connect(*asked)) == [f"127.0.0.77 {asked[1]}", f"127.0.0.1 {again.port}"]
    assert intercepted.pending() == 0


def test_direct_over_ipv6(intercepted):
    server = intercepted.keep(socket.create_server(("::1", 0), family=socket.AF_INET6))
    port = server.getsockname()[1]
    rule = intercepted.rule(End("::1", 9), cidrs=("::1/128",), direct_when_down=True)
    intercepted.write(rule)
    assert intercepted.connect("::1", port).getpeername()[:2] == ("::1", port)
    proxy = intercepted.namer("::1")
    intercepted.write(rule._replace(to=(End("::1", proxy.port),)))
    assert told(intercepted.connect("::1", port))[0] == f"::1 {port}"


def test_a_chain_of_proxies(intercepted):
    """The first proxy's connections are intercepted for the second."""
    first, second = intercepted.namer(), intercepted.namer()
    chained = intercepted.rule(
        second.port, apps=intercepted.rule(1).proxy, proxy=0, apps_level=intercepted.rule(1).proxy_level, slot=2
    )
    intercepted.write(intercepted.rule(first.port), chained)
    assert told(intercepted.connect(FAR4, 80)) == [f"{FAR4} 80", f"127.0.0.1 {first.port}"]
    with intercepted.as_proxy():
        onward = intercepted.keep(socket.create_connection((FAR4, 80)))
    assert told(onward) == [f"{FAR4} 80", f"127.0.0.1 {second.port}"]
    assert (intercepted.counts(1)["claimed"], intercepted.counts(2)["claimed"]) == (1, 1)
