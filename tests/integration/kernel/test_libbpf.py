# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The binding to libbpf, against the running kernel."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.bindings import binding

# r0 = 1; exit
RETURN_ONE = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
EXIT_ONLY = struct.pack("<BBhi", 0x95, 0, 0, 0)


@pytest.fixture
def sock_ops():
    with libbpf.load_program(libbpf.PROG_TYPE_SOCK_OPS, "one", RETURN_ONE, libbpf.ATTACH_CGROUP_SOCK_OPS) as program:
        yield program


@pytest.fixture
def other():
    with libbpf.load_program(libbpf.PROG_TYPE_SOCK_OPS, "other", RETURN_ONE, libbpf.ATTACH_CGROUP_SOCK_OPS) as program:
        yield program


@pytest.fixture
def cgroup(host):
    number = os.open(host.cgroup, os.O_RDONLY)
    yield number
    os.close(number)


def new_map(map_type=libbpf.MAP_TYPE_HASH, key=8, value=4, entries=5000) -> libbpf.Map:
    return libbpf.Map(libbpf.create_map(map_type, "a_map_of_the_test", key, value, entries))


def test_map_entries():
    with new_map() as numbers:
        written = {struct.pack("Q", n): struct.pack("I", n) for n in range(5000)}
        for key, value in written.items():
            numbers.update(key, value)
        assert dict(numbers.items()) == written
        assert sorted(numbers.keys()) == sorted(written)
        key = struct.pack("Q", 7)
        assert numbers.lookup(key) == struct.pack("I", 7)
        assert numbers.delete(key) is True
        assert numbers.delete(key) is False
        assert numbers.lookup(key) is None
        with pytest.raises(libbpf.BpfError) as caught:
            numbers.update(struct.pack("Q", 1), struct.pack("I", 1), libbpf.MAP_NOEXIST)
        assert caught.value.errno == errno.EEXIST


def test_map_refuses_a_key_or_value_of_another_size():
    with new_map() as numbers:
        with pytest.raises(ValueError, match="keys of 8 bytes"):
            numbers.lookup(b"short")
        with pytest.raises(ValueError, match="values of 4 bytes"):
            numbers.update(bytes(8), b"much too long")


def test_array_and_per_cpu_maps_list_their_entries():
    with new_map(libbpf.MAP_TYPE_ARRAY, 4, 8, 3) as array:
        array.update(struct.pack("I", 2), bytes(range(8)))
        assert list(array.items())[2] == (struct.pack("I", 2), bytes(range(8)))
    with new_map(libbpf.MAP_TYPE_PERCPU_ARRAY, 4, 12, 2) as per_cpu:
        assert per_cpu.value_bytes == 16 * libbpf.num_possible_cpus()
        assert [len(value) for _key, value in per_cpu.items()] == [per_cpu.value_bytes] * 2


def test_what_a_descriptor_is(sock_ops, cgroup, host):
    with new_map() as numbers, libbpf.create_link(sock_ops, cgroup, libbpf.ATTACH_CGROUP_SOCK_OPS) as link:
        assert [libbpf.kind(fd) for fd in (sock_ops, numbers, link)] == ["program", "map", "link"]
        pin = str(host.bpffs / "numbers")
        libbpf.pin(numbers, pin)
        with libbpf.Map.open_pin(pin) as again:
            assert again.info == numbers.info
        assert numbers.info.name == "a_map_of_the_te"
        program_pin = str(host.bpffs / "program")
        libbpf.pin(sock_ops, program_pin)
        with pytest.raises(libbpf.BpfError, match="is a pin of a program, not of a map"):
            libbpf.Map.open_pin(program_pin)


def test_ids(sock_ops):
    info = libbpf.program_info(sock_ops)
    assert info.id in set(libbpf.program_ids())
    assert (info.type, info.name) == (libbpf.PROG_TYPE_SOCK_OPS, "one")
    with libbpf.program_by_id(info.id) as again:
        assert libbpf.program_info(again) == info
    with new_map() as numbers:
        assert numbers.info.id in set(libbpf.map_ids())
        number = numbers.info.id
    with pytest.raises(libbpf.BpfError) as caught:
        libbpf.map_by_id(number)
    assert caught.value.errno == errno.ENOENT


def test_link_life(sock_ops, other, cgroup, host):
    kind = libbpf.ATTACH_CGROUP_SOCK_OPS
    one, two = libbpf.program_info(sock_ops).id, libbpf.program_info(other).id
    with libbpf.create_link(sock_ops, cgroup, kind) as link:
        assert libbpf.query(cgroup, kind) == libbpf.Query([one], libbpf.F_ALLOW_MULTI)
        info = libbpf.link_info(link)
        assert info.id in set(libbpf.link_ids())
        assert (info.program_id, info.cgroup_id, info.attach_type) == (one, os.stat(host.cgroup).st_ino, kind)
        libbpf.update_link(link, other, sock_ops)
        assert libbpf.query(cgroup, kind).program_ids == [two]
        with pytest.raises(libbpf.BpfError):
            libbpf.update_link(link, other, sock_ops)
        libbpf.detach_link(link)
        assert libbpf.query(cgroup, kind).program_ids == []


def test_attach_without_link(sock_ops, other, cgroup):
    kind = libbpf.ATTACH_CGROUP_SOCK_OPS
    one, two = libbpf.program_info(sock_ops).id, libbpf.program_info(other).id
    libbpf.attach(sock_ops, cgroup, kind, libbpf.F_ALLOW_MULTI)
    assert libbpf.query(cgroup, kind).program_ids == [one]
    libbpf.attach(other, cgroup, kind, libbpf.F_ALLOW_MULTI | libbpf.F_REPLACE, sock_ops)
    assert libbpf.query(cgroup, kind).program_ids == [two]
    with pytest.raises(libbpf.BpfError) as caught:
        libbpf.detach(sock_ops, cgroup, kind)
    assert caught.value.errno == errno.ENOENT
    libbpf.detach(other, cgroup, kind)
    assert libbpf.query(cgroup, kind).program_ids == []


def test_a_map_tells_its_verdict_program():
    kind = libbpf.ATTACH_SK_MSG_VERDICT
    with new_map(libbpf.MAP_TYPE_SOCKHASH, 8, 8, 4) as peers, libbpf.load_program(
        libbpf.PROG_TYPE_SK_MSG, "verdict", RETURN_ONE, kind
    ) as verdict:
        assert libbpf.query(peers, kind).program_ids == []
        libbpf.attach(verdict, peers, kind)
        assert libbpf.query(peers, kind).program_ids == [libbpf.program_info(verdict).id]
        libbpf.detach(verdict, peers, kind)
        assert libbpf.query(peers, kind).program_ids == []


def test_the_verifiers_log_comes_with_the_error():
    with pytest.raises(libbpf.BpfError) as caught:
        libbpf.load_program(libbpf.PROG_TYPE_SOCK_OPS, "bad", EXIT_ONLY, libbpf.ATTACH_CGROUP_SOCK_OPS)
    assert caught.value.errno == errno.EACCES
    assert "R0 !read_ok" in caught.value.detail
    assert str(caught.value) == "loading the program bad: Permission denied (EACCES)"


def test_libbpfs_own_words_come_with_the_error():
    with pytest.raises(libbpf.BpfError) as caught:
        libbpf.Object(b"not an object", "x")
    assert "not a proper ELF object" in caught.value.detail


def test_probes():
    assert libbpf.probe_prog_type(libbpf.PROG_TYPE_SK_MSG)
    assert libbpf.probe_map_type(libbpf.MAP_TYPE_SOCKHASH)
    assert libbpf.probe_helper(libbpf.PROG_TYPE_SK_MSG, libbpf.HELPER_GET_NETNS_COOKIE)
    assert not libbpf.probe_helper(libbpf.PROG_TYPE_SOCK_OPS, 9999)


def test_names():
    assert libbpf.map_type_name(libbpf.MAP_TYPE_SOCKHASH) == "sockhash"
    assert libbpf.prog_type_name(libbpf.PROG_TYPE_SK_MSG) == "sk_msg"
    assert libbpf.attach_type_name(libbpf.ATTACH_CGROUP_SOCK_OPS) == "cgroup_sock_ops"
    assert libbpf.map_type_name(9999) == "9999"


def test_a_closed_descriptor_is_not_used():
    numbers = new_map()
    numbers.close()
    with pytest.raises(ValueError, match="closed"):
        numbers.lookup(bytes(8))


def test_no_libbpf_is_one_line_with_the_package(monkeypatch):
    monkeypatch.setattr(binding, "_loaded", [])
    monkeypatch.setattr(binding, "LIBRARY", "libbpf.so.0.absent")
    with pytest.raises(SockredirError) as caught:
        libbpf.version()
    line = str(caught.value)
    assert line.startswith("libbpf.so.0.absent is not on this host; run: ")
    assert "install libbpf" in line
