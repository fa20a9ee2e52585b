# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections go to the proxy, which is told where they wanted to go; their programs believe that they are there."""

from __future__ import annotations

import errno
import selectors
import socket

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from support.interception import FAR4, FAR6, RULES, dissolve, end_of, told

TCP_FASTOPEN_CONNECT = 30
IPPROTO_MPTCP = 262


@pytest.mark.parametrize(
    ("asked", "family", "listener"),
    [
        (FAR4, socket.AF_INET, "127.0.0.1"),
        (FAR6, socket.AF_INET6, "::1"),
        (f"::ffff:{FAR4}", socket.AF_INET6, "127.0.0.1"),
        (FAR4, socket.AF_INET, "::"),
        (FAR6, socket.AF_INET6, "::"),
        (f"::ffff:{FAR4}", socket.AF_INET6, "::"),
    ],
    ids=["ipv4", "ipv6", "v4-mapped", "ipv4-dual", "ipv6-dual", "v4-mapped-dual"],
)
def test_the_proxy_knows_where_it_was_to_go_and_the_client_is_there(intercepted, asked, family, listener):
    proxy = intercepted.namer(listener)
    intercepted.write(intercepted.rule(proxy.port))
    client = intercepted.connect(asked, 8080, family)
    wanted = end_of((asked, 8080))
    assert end_of(client.getpeername()) == wanted
    assert client.getpeername()[0] == asked
    local = End("::1" if asked == FAR6 else "127.0.0.1", proxy.port)
    assert told(client) == [wanted, f"{local.address} {local.port}"]
    counts = intercepted.counts(1)
    assert (counts["rewritten"], counts["claimed"], counts["answered"]) == (1, 1, 1)
    assert intercepted.pending() == 0


@pytest.mark.parametrize("asked", [FAR4, FAR6, f"::ffff:{FAR4}"])
def test_getsockname_answers_where_the_rule_says_so(intercepted, asked):
    proxy = intercepted.namer("::")
    intercepted.write(intercepted.rule(proxy.port, sockname=True))
    wanted = end_of((asked, 443))
    assert told(intercepted.connect(asked, 443)) == [wanted, wanted]


def test_a_client_that_does_not_block(intercepted):
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port))
    client = intercepted.socket()
    client.setblocking(False)
    with intercepted.as_app():
        assert client.connect_ex((FAR4, 80)) in (0, errno.EINPROGRESS)
        assert client.connect_ex((FAR4, 80)) in (0, errno.EALREADY, errno.EISCONN)
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_WRITE)
        assert selector.select(20)
    client.settimeout(20)
    assert told(client)[0] == f"{FAR4} 80"
    assert end_of(client.getpeername()) == f"{FAR4} 80"


@pytest.mark.parametrize("source", ["127.0.0.9", "0.0.0.0"])
def test_a_client_that_is_bound(intercepted, source):
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port))
    client = intercepted.socket()
    client.bind((source, 0))
    port = client.getsockname()[1]
    with intercepted.as_app():
        client.connect((FAR4, 80))
    assert told(client)[0] == f"{FAR4} 80"
    assert client.getsockname()[1] == port


@pytest.mark.parametrize("way", ["sendto", "option"])
@pytest.mark.parametrize("asked", [FAR4, FAR6])
def test_fast_open(intercepted, way, asked):
    proxy = intercepted.namer("::", reads=1)
    proxy.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    intercepted.write(intercepted.rule(proxy.port))
    for port in (81, 82):  # without a cookie, and with one
        client = intercepted.socket(socket.AF_INET6 if ":" in asked else socket.AF_INET)
        client.setblocking(True)
        with intercepted.as_app():
            if way == "sendto":
                assert client.sendto(b"x", socket.MSG_FASTOPEN, (asked, port)) == 1
            else:
                client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
                client.connect((asked, port))
                client.sendall(b"x")
        assert end_of(client.getpeername()) == f"{asked} {port}"
        assert told(client)[0] == f"{asked} {port}"
    assert intercepted.counts(1)["claimed"] == 2
    assert intercepted.pending() == 0


def test_one_socket_connects_again_and_again(intercepted):
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port))
    client = intercepted.socket()
    for port in (80, 81, 82):
        with intercepted.as_app():
            client.connect((FAR4, port))
        assert told(client)[0] == f"{FAR4} {port}"
        dissolve(client)
    assert intercepted.pending() == 0


def test_a_socket_that_goes_elsewhere_afterwards_is_there(intercepted):
    """What was remembered for its earlier connection answers no request."""
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port))
    client = intercepted.connect(FAR4, 80)
    told(client)
    dissolve(client)
    with intercepted.as_app():
        client.connect(("127.0.0.1", proxy.port))  # to the proxy by its name
    assert end_of(client.getpeername()) == f"127.0.0.1 {proxy.port}"
    assert told(client) == ["-", f"127.0.0.1 {proxy.port}"]
    counts = intercepted.counts()
    assert (counts["claimed"], counts["unclaimed"], counts["passed"]) == (1, 1, 1)


def test_a_socket_bound_to_a_device_is_left_alone(intercepted):
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port, cidrs=("127.0.0.0/8",)))
    with intercepted.keep(socket.create_server(("127.0.0.1", 0))) as plain:
        client = intercepted.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        with intercepted.as_app():
            client.connect(plain.getsockname())
        assert client.getpeername() == plain.getsockname()
    assert intercepted.counts(1)["left_alone"] == 1
    assert intercepted.counts(1)["rewritten"] == 0


@pytest.mark.parametrize("asked", [FAR4, FAR6])
def test_mptcp_goes_to_the_proxy_but_its_peer_is_the_proxy(intercepted, asked):
    """The hooks of connect() see its first subflow, that of getpeername() the socket above."""
    proxy = intercepted.namer("::")
    intercepted.write(intercepted.rule(proxy.port))
    try:
        client = intercepted.socket(socket.AF_INET6 if asked == FAR6 else socket.AF_INET, protocol=IPPROTO_MPTCP)
    except OSError as error:
        pytest.skip(f"MPTCP: {error}")
    with intercepted.as_app():
        client.connect((asked, 80))
    assert told(client)[0] == f"{asked} 80"
    assert end_of(client.getpeername()) == f"{'::1' if asked == FAR6 else '127.0.0.1'} {proxy.port}"
    counts = intercepted.counts(1)
    assert (counts["rewritten"], counts["claimed"]) == (1, 1)
    assert intercepted.pending() == 0


def test_who_is_not_in_the_cgroup_is_left_alone(intercepted):
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(proxy.port, cidrs=("127.0.0.0/8",)))
    plain = intercepted.keep(socket.create_server(("127.0.0.1", 0)))
    client = intercepted.keep(socket.create_connection(plain.getsockname()))
    assert client.getpeername() == plain.getsockname()
    assert not any(intercepted.counts().values())


@pytest.mark.parametrize(("values", "asked", "meant"), RULES)
def test_what_a_rule_is_for(intercepted, values, asked, meant):
    proxy = intercepted.namer("::")
    intercepted.write(intercepted.rule(proxy.port, **values))
    client = intercepted.socket(socket.AF_INET6 if ":" in asked[0] else socket.AF_INET)
    with intercepted.as_app():
        refused = client.connect_ex(asked)
    counts = intercepted.counts()
    assert (counts["rewritten"], counts["passed"]) == (int(meant), int(not meant))
    assert refused == (0 if meant else errno.ECONNREFUSED)


@pytest.mark.parametrize("asked", ["224.0.0.1", "169.254.1.1", "255.255.255.255", "fe80::1%lo", "ff02::1%lo"])
def test_what_never_leaves_the_link_is_meant_by_no_rule_that_does_not_say_so(intercepted, asked):
    intercepted.write(intercepted.rule(intercepted.namer("::").port))
    client = intercepted.socket(socket.AF_INET6 if ":" in asked else socket.AF_INET)
    client.setblocking(False)
    with intercepted.as_app():
        client.connect_ex(socket.getaddrinfo(asked, 80, type=socket.SOCK_STREAM)[0][4])
    assert intercepted.counts()["rewritten"] == 0


def test_the_first_rule_that_fits_counts_and_rules_change_at_run_time(intercepted):
    one, other = intercepted.namer(), intercepted.namer()
    specific = intercepted.rule(one.port, ports=((80, 80),), slot=1)
    general = intercepted.rule(other.port, slot=2)
    intercepted.write(specific, general)
    live = intercepted.connect(FAR4, 80)
    assert told(intercepted.connect(FAR4, 80))[1] == f"127.0.0.1 {one.port}"
    assert told(intercepted.connect(FAR4, 81))[1] == f"127.0.0.1 {other.port}"
    for _turn in range(3):
        intercepted.write(general, specific)
        assert told(intercepted.connect(FAR4, 80))[1] == f"127.0.0.1 {other.port}"
        intercepted.write(specific, general)
        assert told(intercepted.connect(FAR4, 80))[1] == f"127.0.0.1 {one.port}"
    intercepted.write()
    assert told(live)[0] == f"{FAR4} 80"  # made under an earlier rule
    assert end_of(live.getpeername()) == f"{FAR4} 80"
    client = intercepted.socket()
    with intercepted.as_app():
        assert client.connect_ex(("127.0.0.77", 80)) == errno.ECONNREFUSED


def test_a_family_without_an_address_is_not_intercepted(intercepted):
    proxy = intercepted.namer()
    intercepted.write(intercepted.rule(End("127.0.0.1", proxy.port), cidrs=("::1/128", "127.0.0.0/8")))
    client = intercepted.socket(socket.AF_INET6)
    with intercepted.as_app():
        assert client.connect_ex(("::1", 79)) == errno.ECONNREFUSED
    assert intercepted.counts()["passed"] == 1


@pytest.mark.parametrize("raw", [b"\xff" * 8, bytes(8), b"\2\0\0\0\1\0\0\0"])
def test_nonsense_in_the_state_is_no_rules(intercepted, raw):
    intercepted.write(intercepted.rule(intercepted.namer().port, cidrs=("127.0.0.0/8",)))
    with libbpf.Map.open_pin(str(intercepted.pin_dir / "intercept_state")) as state:
        state.update(bytes(4), raw)
    client = intercepted.socket()
    with intercepted.as_app():
        assert client.connect_ex(("127.0.0.77", 80)) == errno.ECONNREFUSED
    assert intercepted.counts()["passed"] == 1


@pytest.mark.parametrize("fill", [b"\xff", b"\x55", b"\x01"])
def test_nonsense_in_a_rule_does_no_harm(intercepted, fill):
    intercepted.write(intercepted.rule(intercepted.namer().port))
    with libbpf.Map.open_pin(str(intercepted.pin_dir / "intercepts")) as rules:
        for key in list(rules.keys()):
            rules.update(key, fill * intercept.RULE_SIZE)
    for address in (FAR4, FAR6, "127.0.0.77"):
        client = intercepted.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        client.setblocking(False)
        with intercepted.as_app():
            client.connect_ex((address, 80))
            intercepted.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.77", 53))
