# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modes and policy, changed under live connections, and settings that make no sense."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import socket
import subprocess
import threading

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout, settings_value
from support.datapath import read_exactly
from support.waiting import wait_for


def talk(pair, size: int = 50_000) -> None:
    """Both ends write and read, and what arrives is right."""
    data = random.randbytes(size)
    for writer, reader in (pair, pair[::-1]):
        thread = threading.Thread(target=writer.sendall, args=(data,))
        thread.start()
        assert read_exactly(reader, size) == data
        thread.join()


def redirected(lab) -> int:
    return lab.redirection.bytes("redirected")


def test_observe_counts_and_redirects_nothing(lab):
    lab.redirection.set(mode="observe")
    client, server = lab.pair()
    talk((client, server))
    assert lab.redirection.peers() == 0
    assert lab.redirection.flows() == []
    client.close()
    server.close()
    wait_for(lambda: lab.redirection.bytes("would_redirect") == 100_000)
    counters = lab.redirection.counters()
    assert counters["observed"].events == 2
    assert counters["redirected"].events == 0
    assert counters["would_redirect"].events >= 2


def test_from_observe_to_enforce_only_new_connections_are_redirected(lab):
    lab.redirection.set(mode="observe")
    old = lab.pair()
    talk(old)
    lab.redirection.set(mode="enforce")
    talk(old)
    assert redirected(lab) == 0
    talk(lab.pair())
    assert redirected(lab) == 100_000


def test_drain_takes_live_connections_back_to_tcp_for_good(lab):
    old = lab.pair()
    talk(old)
    assert redirected(lab) == 100_000
    lab.redirection.set(mode="drain")
    talk(old)
    talk(lab.pair())
    assert redirected(lab) == 100_000
    assert lab.redirection.events("drained") > 0
    assert lab.redirection.events("skip_mode") == 2
    lab.redirection.set(mode="enforce")
    talk(old)
    assert redirected(lab) == 100_000
    talk(lab.pair())
    assert redirected(lab) == 200_000


def test_unread_bytes_survive_drain(lab):
    client, server = lab.pair()
    data = random.randbytes(500_000)
    client.sendall(data)
    lab.redirection.set(mode="drain")
    thread = threading.Thread(target=client.sendall, args=(data,))
    thread.start()
    assert read_exactly(server, 2 * len(data)) == data + data
    thread.join()


@pytest.mark.parametrize("policy", ["include", "exclude"])
def test_ports(lab, policy):
    chosen, other = lab.listener(), lab.listener()
    port = chosen.getsockname()[1]
    lab.redirection.set(**{policy: ((port, port),)})
    for listener, expected in ((chosen, policy == "include"), (other, policy == "exclude")):
        before = redirected(lab)
        client = lab.connect(listener)
        talk((client, lab.keep(listener.accept()[0])))
        assert (redirected(lab) > before) is expected
    assert lab.redirection.events("skip_policy") == 2


def test_exclude_wins(lab):
    listener = lab.listener()
    port = listener.getsockname()[1]
    lab.redirection.set(include=((1, 65535),), exclude=((port, port),))
    client = lab.connect(listener)
    talk((client, lab.keep(listener.accept()[0])))
    assert redirected(lab) == 0


def test_a_policy_change_leaves_live_connections_as_they_are(lab):
    old = lab.pair()
    talk(old)
    lab.redirection.set(exclude=((1, 65535),))
    talk(old)
    assert redirected(lab) == 200_000
    talk(lab.pair())
    assert redirected(lab) == 200_000


def test_a_connection_made_while_the_policy_changes_stays_on_tcp(lab):
    raw = settings_value.encode_settings(settings_value.Settings(generation=3))
    lab.redirection.set_raw(raw)
    talk(lab.pair())
    assert redirected(lab) == 0
    assert lab.redirection.events("skip_mode") == 2


def nonsense():
    good = settings_value.encode_settings(settings_value.Settings())
    yield "zeros", bytes(len(good))
    yield "ones", b"\xff" * len(good)
    yield "version", (7).to_bytes(4, "little") + good[4:]
    yield "size", good[:4] + (8).to_bytes(4, "little") + good[8:]
    yield "mode", good[:8] + (99).to_bytes(4, "little") + good[12:]
    for seed in range(3):
        yield f"random-{seed}", random.Random(seed).randbytes(len(good))


@pytest.mark.parametrize(("_name", "raw"), list(nonsense()), ids=[name for name, _raw in nonsense()])
def test_nonsense_turns_redirection_off_and_harms_nobody(lab, _name, raw):
    old = lab.pair()
    talk(old)
    lab.redirection.set_raw(raw)
    talk(old)
    talk(lab.pair())
    assert redirected(lab) == 100_000


def test_impossible_counts_ranges_and_prefixes_are_harmless(lab):
    """What stands behind a valid head may be anything: too many entries, ranges that end before they begin."""
    good = bytearray(settings_value.encode_settings(settings_value.Settings()))
    body = layout.SETTINGS_HEAD.size
    for seed in range(5):
        source = random.Random(seed)
        good[body:] = source.randbytes(len(good) - body)
        good[44:56] = source.randbytes(12)
        lab.redirection.set_raw(bytes(good))
        talk(lab.pair())


needs_ip = pytest.mark.skipif(not shutil.which("ip"), reason="needs iproute2")


class Veth:
    """A second namespace, reached over veth: 198.18.77.1 here, .2 there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Veth:
        for command in (
            f"ip netns add {self.name}",
            f"ip link add {self.name} type veth peer name eth0 netns {self.name}",
            f"ip addr add 198.18.77.1/24 dev {self.name}",
            f"ip link set {self.name} up",
            f"ip -n {self.name} addr add 198.18.77.2/24 dev eth0",
            f"ip -n {self.name} link set eth0 up",
        ):
            subprocess.run(command.split(), check=True)
        return self

    def __exit__(self, *_exception: object) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)


@pytest.fixture
def veth():
    with Veth("srdp21") as own:
        yield own


def across(lab, veth):
    """A connection from here to the other namespace."""
    results = []

    def serve():
        own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{veth.name}", os.O_RDONLY)
        setns(there)
        try:
            with lab.inside():
                results.append(lab.keep(socket.create_server(("198.18.77.2", 21210))))
        finally:
            setns(own)
            os.close(own)
            os.close(there)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(10)
    client = lab.connect(results[0], "198.18.77.2")
    return client, lab.keep(results[0].accept()[0])


def setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(descriptor, 0x40000000) == 0, os.strerror(ctypes.get_errno())


@needs_ip
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"skip_remote": 2}),
        ({"cidrs": ("198.18.77.0/24",)}, {"no_peer": 1, "skip_alone": 1}),
        ({"cidrs": ("198.18.77.1/32",), "cross_netns": True}, {"skip_remote": 2}),
        ({"cidrs": ("198.18.77.0/24",), "cross_netns": True}, {"redirected": 2}),
        ({"cidrs": ("198.18.0.0/15", "fd00::/8"), "cross_netns": True}, {"redirected": 2}),
        ({"cidrs": ("0.0.0.0/0",), "cross_netns": True}, {"redirected": 2}),
        ({"cidrs": ("198.18.77.1/32", "198.18.77.2/32"), "cross_netns": True}, {"redirected": 2}),
    ],
    ids=["none", "not-asked-for", "one-end", "both-ends", "wide", "all-ipv4", "two-lists"],
)
def test_pairs_in_two_namespaces(lab, veth, settings, expected):
    lab.redirection.set(**settings)
    client, server = across(lab, veth)
    client.sendall(b"to there")
    assert read_exactly(server, 8) == b"to there"
    server.sendall(b"to here")
    assert read_exactly(client, 7) == b"to here"
    assert {label: lab.redirection.events(label) for label in expected} == expected
    if "redirected" not in expected:
        assert lab.redirection.events("redirected") == 0
    client.close()
    server.close()
    lab.redirection.wait_until_empty()


@needs_ip
def test_cidrs_taken_away_under_a_live_connection(lab, veth):
    settings = {"cidrs": ("198.18.77.0/24",), "cross_netns": True}
    lab.redirection.set(**settings)
    pair = across(lab, veth)
    talk(pair)
    lab.redirection.set()
    talk(pair)
    lab.redirection.set(**settings)
    talk(pair)
    assert redirected(lab) == 300_000
