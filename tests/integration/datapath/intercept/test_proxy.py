# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy never comes back to itself, and one that is down is dealt with as its rule says."""

from __future__ import annotations

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


def refusal(lab, cgroup, address: str, port: int) -> int:
    """errno of a connection from a cgroup; 0 where it stands."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(cgroup):
        return lab.keep(socket.socket(family)).connect_ex((address, port))


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::1", "::"])
def test_the_proxy_cannot_reach_its_own_listener(lab, address):
    proxy = lab.namer("::")
    lab.icept.write(lab.icept.rule(proxy.port))
    assert refusal(lab, lab.icept.proxy, address, proxy.port) == errno.EPERM
    assert lab.icept.counts(1)["looped"] == 1
    assert refusal(lab, lab.icept.apps, address, proxy.port) == 0


def test_another_address_is_refused_once_the_listener_was_reached_there(lab):
    proxy = lab.namer("0.0.0.0")
    lab.icept.write(lab.icept.rule(proxy.port))
    assert refusal(lab, lab.icept.proxy, "127.0.0.5", proxy.port) == 0
    assert refusal(lab, lab.icept.proxy, "127.0.0.5", proxy.port) == errno.EPERM
    assert refusal(lab, lab.icept.proxy, "127.0.0.6", proxy.port) == 0


def test_the_proxy_itself_is_not_intercepted(lab):
    """Also where its cgroup is below that of the programs, or it is told by its user."""
    proxy = lab.namer()
    server = lab.keep(socket.create_server(("127.0.0.77", 0)))
    port = server.getsockname()[1]
    everything = {"cidrs": ("127.0.0.0/8",)}
    inner = lab.icept.apps / "inner"
    inner.mkdir()
    below = {"proxy": os.stat(inner).st_ino, "proxy_level": lab.icept.rule(1).apps_level + 1}
    lab.icept.write(lab.icept.rule(proxy.port, **everything, **below))
    assert told(lab.connect("127.0.0.77", port))[0] == f"127.0.0.77 {port}"
    assert refusal(lab, inner, "127.0.0.77", port) == 0
    lab.keep(server.accept()[0])
    lab.icept.write(lab.icept.rule(proxy.port, **everything, proxy=0, proxy_user=os.geteuid()))
    assert refusal(lab, lab.icept.apps, "127.0.0.77", port) == 0
    lab.keep(server.accept()[0])
    assert refusal(lab, lab.icept.apps, "127.0.0.1", proxy.port) == errno.EPERM
    lab.icept.write(lab.icept.rule(proxy.port, **everything, proxy=0, proxy_user=os.geteuid() + 1))
    assert told(lab.connect("127.0.0.77", port))[0] == f"127.0.0.77 {port}"


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
def test_a_loop_ends_at_once(lab, way):
    """A client asks for the proxy's own port at another address of this host."""
    with lab.icept.as_proxy():
        listener = lab.keep(socket.create_server(("0.0.0.0", 0)))
    port = listener.getsockname()[1]
    cidrs = ("127.0.0.0/8",) if way == "intercepted" else ()
    lab.icept.write(lab.icept.rule(port, cidrs=cidrs))
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=forward, args=(listener, lab.icept.proxy, theirs))
    child.start()
    try:
        lab.connect("127.0.0.9", port)
        assert mine.poll(30)
        hops, refused = mine.recv()
    finally:
        child.kill()
        child.join()
    assert refused == errno.EPERM
    assert hops <= 2
    assert lab.icept.counts(1)["looped"] == 1


@pytest.mark.parametrize("direct", [False, True], ids=["refuse", "direct"])
def test_the_proxy_is_down_and_comes_back(lab, direct):
    server = lab.keep(socket.create_server(("127.0.0.77", 0)))
    asked = server.getsockname()
    proxy = lab.namer()
    lab.icept.write(lab.icept.rule(proxy.port, cidrs=("127.0.0.0/8",), direct_when_down=direct))
    assert told(lab.connect(*asked))[0] == f"127.0.0.77 {asked[1]}"
    proxy.close()
    client = lab.socket()
    with lab.icept.as_app():
        assert client.connect_ex(asked) == (0 if direct else errno.ECONNREFUSED)
    if direct:
        assert client.getpeername() == asked
        lab.keep(server.accept()[0])
    assert lab.icept.counts(1)["direct"] == int(direct)
    again = lab.namer(port=proxy.port)
    assert told(lab.connect(*asked)) == [f"127.0.0.77 {asked[1]}", f"127.0.0.1 {again.port}"]
    assert lab.icept.pending() == 0


def test_direct_over_ipv6(lab):
    server = lab.keep(socket.create_server(("::1", 0), family=socket.AF_INET6))
    port = server.getsockname()[1]
    rule = lab.icept.rule(End("::1", 9), cidrs=("::1/128",), direct_when_down=True)
    lab.icept.write(rule)
    assert lab.connect("::1", port).getpeername()[:2] == ("::1", port)
    proxy = lab.namer("::1")
    lab.icept.write(rule._replace(to=(End("::1", proxy.port),)))
    assert told(lab.connect("::1", port))[0] == f"::1 {port}"


def test_a_chain_of_proxies(lab):
    """The first proxy's connections are intercepted for the second."""
    first, second = lab.namer(), lab.namer()
    chained = lab.icept.rule(
        second.port, apps=lab.icept.rule(1).proxy, proxy=0, apps_level=lab.icept.rule(1).proxy_level, slot=2
    )
    lab.icept.write(lab.icept.rule(first.port), chained)
    assert told(lab.connect(FAR4, 80)) == [f"{FAR4} 80", f"127.0.0.1 {first.port}"]
    with lab.icept.as_proxy():
        onward = lab.keep(socket.create_connection((FAR4, 80)))
    assert told(onward) == [f"{FAR4} 80", f"127.0.0.1 {second.port}"]
    assert (lab.icept.counts(1)["claimed"], lab.icept.counts(2)["claimed"]) == (1, 1)
