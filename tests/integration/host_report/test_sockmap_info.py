# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockmap_info on the live kernel: bare, enabled, with traffic, and for somebody who is not root."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, libbpf
from ansible_collections.ebpf.sockredir.plugins.modules import sockmap_info
from support.collection import ROOT
from support.host import wait_until_detached
from support.module import run_module

yaml = pytest.importorskip("yaml")
PARTS = ("prerequisites", "programs", "attachments", "counters", "flows", "ports", "intercepts")
EVERYTHING = (*PARTS, "drift")  # as gathered where nothing else is asked for


def documented() -> dict:
    return yaml.safe_load(sockmap_info.RETURN)


def check_against(described: dict, value: object, where: str) -> None:
    """Every key that is there is described, every described one is there, and its type is as said."""
    kinds = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list, "float": float}
    if value is None:
        return
    assert isinstance(value, kinds[described["type"]]), f"{where} is {value!r}"
    contains = described.get("contains")
    for part in [value] if isinstance(value, dict) else value if isinstance(value, list) else []:
        if contains and isinstance(part, dict):
            assert set(part) == set(contains), where
            for name, each in part.items():
                check_against(contains[name], each, f"{where}.{name}")


def check_schema(result: dict, parts: tuple) -> None:
    described = documented()
    expected = {
        name
        for name, each in described.items()
        if each["returned"] == "success" or any(f"V({part})" in each["returned"] for part in parts)
    }
    found = set(result) - {"changed", "failed", "invocation"}
    assert found == expected
    for name in found:
        check_against(described[name], result[name], name)


def by_pin(objects: list) -> dict:
    return {os.path.basename(each["pin"]): each for each in objects}


def nothing_changed(directory: Path) -> list:
    return sorted(str(path) for path in directory.rglob("*"))


@pytest.mark.parametrize("size", range(len(PARTS) + 1))
def test_any_combination_on_a_bare_host(bare, size):
    before = nothing_changed(bare.sandbox.bpffs)
    for parts in itertools.combinations(PARTS, size):
        result = bare.info(*parts, pin_dir=str(bare.sandbox.pin_dir))
        check_schema(result, parts)
        assert result["enabled"] is False
        assert result["manifest"] is None
        assert result["unreadable"] == []
        if size not in (0, 1, len(PARTS)):
            break  # the parts do not depend on one another; each alone and all together will do
    assert nothing_changed(bare.sandbox.bpffs) == before
    assert not bare.sandbox.state_dir.exists()


def test_this_host(bare):
    host = bare.info()["host"]
    assert host["kernel"] == os.uname().release
    assert host["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert str(bare.sandbox.cgroup).startswith(host["cgroup2"])
    assert {"mount_point": str(bare.sandbox.bpffs), "reachable": True} in host["bpffs"]


def test_a_stacked_bpffs_is_shown(bare):
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bare.sandbox.bpffs)], check=True)
    try:
        mounted = [each for each in bare.info()["host"]["bpffs"] if each["mount_point"] == str(bare.sandbox.bpffs)]
    finally:
        subprocess.run(["umount", str(bare.sandbox.bpffs)], check=True)
    assert [each["reachable"] for each in mounted] == [False, True]


def test_what_is_loaded_and_attached(enabled):
    result = enabled.info(*PARTS)
    check_schema(result, PARTS)
    pins = enabled.sandbox.pin_dir
    assert result["enabled"] is True
    assert result["pin_dir"] == str(pins), "as the manifest says"
    assert result["cgroup"] == str(enabled.sandbox.cgroup)
    assert result["unreadable"] == []
    programs, maps = by_pin(result["programs"]), by_pin(result["maps"])
    assert {name: each["type"] for name, each in programs.items()} == {
        "sockops": "sock_ops",
        "verdict": "sk_msg",
        "receive": "sk_skb",
    }
    assert {each["digest"] for each in programs.values()} == {result["manifest"]["programs"]["sockredir"]["digest"]}
    assert maps["peers"]["type"] == "sockhash"
    assert maps["peers"]["max_entries"] == 1024
    (link,) = result["links"]
    by_type = {each["attach_type"]: each for each in result["attachments"]}
    assert set(by_type) == {"cgroup_sock_ops", "sk_msg_verdict", "sk_skb_stream_verdict"}
    for attach_type, name in (("sk_msg_verdict", "verdict"), ("sk_skb_stream_verdict", "receive")):
        on_map = by_type[attach_type]
        assert (on_map["map"], on_map["times"], on_map["program_id"]) == (f"{pins}/peers", 1, programs[name]["id"])
        assert on_map["target_id"] == maps["peers"]["id"]
    on_cgroup = by_type["cgroup_sock_ops"]
    assert (on_cgroup["times"], on_cgroup["link_id"]) == (1, link["id"])
    assert on_cgroup["target_id"] == os.stat(enabled.sandbox.cgroup).st_ino == link["cgroup_id"]
    assert result["foreign"] == []
    assert result["draining"] == []
    assert (result["mode"], result["settings"]["budget"]) == ("enforce", 64 << 20)
    assert result["memory"] == {"used": 0, "budget": 64 << 20}
    assert result["flows"] == {"open": 0, "connections": []}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_connections_with_their_processes(enabled, address):
    with enabled.talking(address) as (pid, client_port, server_port):
        result = enabled.info("flows", "counters")
        alone = enabled.info("counters")
    check_schema(result, ("flows", "counters"))
    assert result["flows"]["open"] == 1
    (connection,) = result["flows"]["connections"]
    client, server = connection["sides"]
    assert (client["address"], client["port"], client["server"]) == (address, client_port, False)
    assert (server["address"], server["port"], server["server"]) == (address, server_port, True)
    assert {client["pid"], server["pid"]} == {pid}
    assert {client["comm"], server["comm"]} == {os.path.basename(sys.executable)[:15]}
    assert client["state"] == server["state"] == "redirected"
    assert (client["messages"], client["bytes"]) == (10, 10000)
    assert (server["messages"], server["bytes"]) == (10, 10)
    assert connection["age"] > 0
    assert result["counters"]["redirected"] == {"messages": 20, "bytes": 10010}
    assert alone["flows"] == {"open": 1, "connections": None}
    assert enabled.info("flows")["flows"] == {"open": 0, "connections": []}, "it was closed"


def test_the_same_addresses_in_another_namespace_have_their_own_process(enabled):
    up = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    with enabled.talking() as (pid, *_ports), enabled.talking(prefix=up) as (other, *_other_ports):
        connections = enabled.info("flows")["flows"]["connections"]
    assert len({each["netns"] for each in connections}) == 2
    assert {side["pid"] for each in connections for side in each["sides"]} == {pid, other}


def test_a_long_list_is_cut(enabled):
    with enabled.talking(), enabled.talking(), enabled.talking():
        flows = enabled.info("flows", max_flows=2)["flows"]
    assert flows["open"] == 3
    assert len(flows["connections"]) == 2


def test_foreign_programs_and_what_is_attached_twice(enabled):
    cgroup, pins = str(enabled.sandbox.cgroup), str(enabled.sandbox.pin_dir)
    with libbpf.get(f"{pins}/sockops") as program, attachments.opened("cgroup", cgroup) as target:
        by_hand = libbpf.create_link(program, target, libbpf.ATTACH_CGROUP_SOCK_OPS)
        returns = bytes.fromhex("b7000000010000009500000000000000")
        foreign = libbpf.load_program(libbpf.PROG_TYPE_SOCK_OPS, "foreign", returns)
        libbpf.attach(foreign, target, libbpf.ATTACH_CGROUP_SOCK_OPS, libbpf.F_ALLOW_MULTI)
    with by_hand, foreign:
        result = enabled.info("attachments")
        number = libbpf.program_info(foreign).id
    check_schema(result, ("attachments",))
    assert [each["times"] for each in result["attachments"] if each["cgroup"]] == [2]
    assert result["foreign"] == [
        {
            "cgroup": cgroup,
            "map": None,
            "netns": None,
            "program_id": number,
            "name": "foreign",
            "type": "sock_ops",
            "method": "legacy",
            "link_id": None,
        }
    ]


def test_what_is_gone(enabled):
    pins = enabled.sandbox.pin_dir
    (link,) = [path for path in pins.iterdir() if path.name.startswith("link_")]
    link.unlink()
    wait_until_detached(enabled.sandbox.cgroup)
    (pins / "peers").unlink()
    (pins / "verdict").unlink()
    result = enabled.info("programs", "attachments")
    *on_map, on_cgroup = sorted(result["attachments"], key=lambda each: each["map"] is None)
    assert {(each["times"], each["target_id"]) for each in on_map} == {(0, None)}
    assert {each["program"]: each["pinned_program_id"] is None for each in on_map} == {
        str(pins / "verdict"): True,
        str(pins / "receive"): False,
    }
    assert (on_cgroup["times"], on_cgroup["link_pin"]) == (0, None)
    assert "verdict" not in by_pin(result["programs"])


def test_a_damaged_manifest_is_said(enabled):
    current = enabled.sandbox.state_dir / "current"
    current.resolve().write_text("{")
    result = enabled.info("programs")
    assert result["enabled"] is None or result["manifest"]["damage"]
    assert "damaged" in str(result["manifest"] or result["unreadable"])


def readable_copy(directory: Path) -> Path:
    """The collection where somebody else than root can read it."""
    copy = directory / "copy"
    for part in ("plugins", "tests/support"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [directory, *copy.rglob("*"), copy, *directory.parents]:
        if path.stat().st_uid == os.getuid() and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | stat.S_IRGRP | stat.S_IROTH | (0o111 if path.is_dir() else 0))
    return copy


_AS_NOBODY = """
import json, os, sys
sys.path.insert(0, "tests")
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report.report import PARTS, gather
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps(gather(PARTS, None, sys.argv[1])))
"""


def test_somebody_who_is_not_root(enabled, tmp_path):
    copy, python = readable_copy(tmp_path), "/usr/bin/python3"  # not one in a home directory
    if not os.path.exists(python):
        pytest.skip(f"needs {python}")
    done = subprocess.run(
        [python, "-c", _AS_NOBODY, str(enabled.sandbox.state_dir)],
        cwd=copy,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    check_schema(result, EVERYTHING)
    assert result["host"]["root"] is False
    assert result["enabled"] is None
    assert "manifest" in [each["what"] for each in result["unreadable"]]
    met = {each["name"]: each["ok"] for each in result["prerequisites"]}
    assert met["root"] is False
    for name in ("bpf_syscall", "one_queue", "fionread"):
        assert met[name] is None, "it cannot be told without root"
    assert met["libbpf"] is True


_COUNTED = """
import collections, json, sys
sys.path.insert(0, "tests")
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report import report
opened = collections.Counter()
sys.addaudithook(lambda event, words: event == "open" and opened.update([str(words[0])]))
gathered = report.gather(report.PARTS, None, sys.argv[1])
assert gathered["enabled"] and gathered["drift"] is not None and gathered["attachments"], gathered
print(json.dumps(opened))
"""


def test_an_audit_reads_everything_once(enabled):
    state_dir = str(enabled.sandbox.state_dir)
    command = [sys.executable, "-c", _COUNTED, state_dir]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    opened = json.loads(done.stdout)
    for path in (f"{state_dir}/current", "/proc/self/mountinfo", "/proc/sys/kernel/random/boot_id"):
        assert opened[path] == 1, (path, opened[path])


def test_without_libbpf(bare):
    """A host that has none: everything else is still told."""
    hide = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        'for lib in /usr/lib/*/libbpf.so* /usr/lib64/libbpf.so*; do test -e "$lib"'
        ' && mount --bind /dev/null "$lib"; done; exec "$@"',
        "sh",
    )
    result = run_module(
        "sockmap_info", {"state_dir": str(bare.sandbox.state_dir), "pin_dir": str(bare.sandbox.pin_dir)}, prefix=hide
    )
    assert not result["failed"], result
    check_schema(result, EVERYTHING)
    met = {each["name"]: each for each in result["prerequisites"]}
    assert met["libbpf"]["ok"] is False
    assert "libbpf1" in met["libbpf"]["cure"]
    assert met["sockhash"]["ok"] is True, "the kernel is asked without it"
    for name in ("one_queue", "fionread"):
        assert met[name]["ok"] is None
        assert "not tried: libbpf.so.1 is not on this host" in met[name]["found"]
    assert "fionread" not in [each["name"] for each in result["advice"]]
