# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockmap_attach on the live kernel: each state tested check, real, again, again in check."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.model import Attached
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock
from support.host import cgroup2_mount, wait_until_detached
from support.module import run_module
from support.waiting import wait_for

# On a cgroup.


@pytest.mark.parametrize("method", ["auto", "link"])
def test_a_cgroup_by_link(bench, method):
    number = bench.program("cgroup")
    done = bench.four_times(cgroup=bench.cgroup, method=method)["attachment"]
    assert (done["method"], done["program_id"]) == ("link", number)
    assert bench.on("cgroup", bench.cgroup) == [Attached(number, "link", done["link_id"])]
    assert os.path.exists(done["link_pin"])
    assert bench.manifest()["attachments"] == [done]
    bench.four_times(cgroup=bench.cgroup, state="absent")
    assert bench.on("cgroup", bench.cgroup) == []
    assert not os.path.exists(done["link_pin"])
    assert bench.manifest()["attachments"] == []
    assert os.path.isdir(bench.cgroup), "it was not ours to remove"


def test_a_cgroup_without_link(bench):
    number = bench.program("cgroup")
    done = bench.four_times(cgroup=bench.cgroup, method="legacy")["attachment"]
    assert (done["method"], done["link_pin"], done["link_id"]) == ("legacy", None, None)
    assert bench.on("cgroup", bench.cgroup) == [Attached(number, "legacy")]
    assert not bench.attach(cgroup=bench.cgroup)["changed"], "auto leaves what is there"
    bench.four_times(cgroup=bench.cgroup, state="absent")
    assert bench.on("cgroup", bench.cgroup) == []


def test_a_relative_cgroup_is_made_and_removed_again(bench):
    bench.program("cgroup")
    inner = f"{bench.cgroup}/outer/inner"
    relative = os.path.relpath(inner, cgroup2_mount())
    failed = bench.attach(cgroup=relative)
    assert failed["failed"]
    assert failed["msg"] == f"cgroup: {inner} does not exist; create it, or set create_cgroup: true"
    bench.four_times(cgroup=relative, create_cgroup=True)
    assert bench.manifest()["cgroups"] == [f"{bench.cgroup}/outer", inner]
    assert not bench.attach(cgroup=inner)["changed"], "absolute or relative is the same cgroup"
    bench.four_times(cgroup=relative, state="absent")
    assert os.listdir(bench.cgroup).count("outer") == 0
    assert bench.manifest()["cgroups"] == []


def test_a_cgroup_in_use_stays_until_it_is_empty(bench):
    bench.program("cgroup")
    inner = f"{bench.cgroup}/inner"
    bench.attach(cgroup=inner, create_cgroup=True)
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            with open(f"{inner}/cgroup.procs", "w") as procs:
                procs.write(str(process.pid))
            assert bench.attach(cgroup=inner, state="absent")["changed"]
            assert bench.on("cgroup", inner) == []
            assert os.path.isdir(inner)
            assert not bench.attach(cgroup=inner, state="absent")["changed"]
        finally:
            process.kill()
    wait_for(lambda: "populated 0" in Path(inner, "cgroup.events").read_text())
    assert bench.attach(cgroup=inner, state="absent")["changed"]
    assert not os.path.isdir(inner)


def test_a_cgroup_that_another_attachment_needs_stays(bench):
    bench.program("cgroup")
    bench.program("cgroup", "second")
    inner = f"{bench.cgroup}/inner"
    bench.attach(cgroup=inner, create_cgroup=True)
    bench.attach(cgroup=inner, program=bench.path("second"))
    bench.attach(cgroup=inner, state="absent")
    assert os.path.isdir(inner)
    bench.attach(cgroup=inner, program=bench.path("second"), state="absent")
    assert not os.path.isdir(inner)


@pytest.mark.parametrize("method", ["link", "legacy"])
def test_a_new_program_takes_the_old_ones_place(bench, method):
    old = bench.program("cgroup")
    first = bench.attach(cgroup=bench.cgroup, method=method)["attachment"]
    new = bench.program("cgroup")
    assert new != old
    done = bench.four_times(cgroup=bench.cgroup, method=method)["attachment"]
    assert [each.program_id for each in bench.on("cgroup", bench.cgroup)] == [new]
    assert done["link_id"] == first["link_id"], "replaced in place"


@pytest.mark.parametrize(("method", "other"), [("link", "legacy"), ("legacy", "link")])
def test_the_method_can_be_changed(bench, method, other):
    number = bench.program("cgroup")
    bench.attach(cgroup=bench.cgroup, method=method)
    bench.four_times(cgroup=bench.cgroup, method=other)
    assert [(each.program_id, each.method) for each in bench.on("cgroup", bench.cgroup)] == [(number, other)]
    assert any(name.startswith("link_") for name in os.listdir(bench.sandbox.pin_dir)) is (other == "link")


def test_a_cgroup_that_died_is_attached_again(bench):
    bench.program("cgroup")
    inner = f"{bench.cgroup}/inner"
    os.mkdir(inner)
    first = bench.attach(cgroup=inner)["attachment"]
    os.rmdir(inner)
    os.mkdir(inner)
    done = bench.four_times(cgroup=inner)["attachment"]
    assert done["cgroup_id"] != first["cgroup_id"]
    assert done["link_id"] != first["link_id"]
    assert len(bench.on("cgroup", inner)) == 1


def test_absent_after_the_cgroup_died_removes_the_dead_link(bench):
    bench.program("cgroup")
    inner = f"{bench.cgroup}/inner"
    done = bench.attach(cgroup=inner, create_cgroup=True)["attachment"]
    os.rmdir(inner)
    assert bench.attach(cgroup=inner, state="absent")["changed"]
    assert not os.path.exists(done["link_pin"])
    assert bench.manifest()["attachments"] == []


@pytest.mark.parametrize("method", ["link", "legacy"])
def test_attached_twice_by_hand_is_once_again(bench, method):
    number = bench.program("cgroup")
    bench.attach(cgroup=bench.cgroup, method=method)
    with attachments.opened("cgroup", bench.cgroup) as target, libbpf.program_by_id(number) as program:
        by_hand = libbpf.create_link(program, target, libbpf.ATTACH_CGROUP_SOCK_OPS)
    with by_hand:
        assert len(bench.on("cgroup", bench.cgroup)) == 2
        bench.four_times(cgroup=bench.cgroup, method=method)
        assert [each.method for each in bench.on("cgroup", bench.cgroup)] == [method]


def test_detached_by_hand_is_attached_again(bench):
    bench.program("cgroup")
    done = bench.attach(cgroup=bench.cgroup)["attachment"]
    os.unlink(done["link_pin"])
    wait_until_detached(bench.sandbox.cgroup)
    bench.four_times(cgroup=bench.cgroup)


def test_it_waits_for_its_turn(bench):
    bench.program("cgroup")
    state_dir = bench.sandbox.state_dir
    with lock.hold(str(state_dir), 0):
        for state in ("present", "absent"):
            refused = bench.attach(cgroup=bench.cgroup, state=state, lock_timeout=0)
            assert f"another run (process {os.getpid()}) has held {state_dir}/lock for the last 0 s" in refused["msg"]
        assert bench.attach(check=True, cgroup=bench.cgroup)["changed"], "who only looks needs no turn"
    assert bench.on("cgroup", bench.cgroup) == []
    assert bench.attach(cgroup=bench.cgroup, lock_timeout=0)["changed"]


def test_foreign_programs_stay(bench):
    bench.program("cgroup")
    with bench.load("cgroup", "foreign") as foreign, attachments.opened("cgroup", bench.cgroup) as target:
        libbpf.attach(foreign, target, libbpf.ATTACH_CGROUP_SOCK_OPS, libbpf.F_ALLOW_MULTI)
        number = libbpf.program_info(foreign).id
        for options in ({}, {"method": "legacy"}, {"state": "absent"}):
            done = bench.four_times(cgroup=bench.cgroup, **options)
            assert done["foreign"] == [{"program_id": number, "method": "legacy", "link_id": None}]
        assert bench.on("cgroup", bench.cgroup) == [Attached(number, "legacy")]


def test_a_cgroup_of_ours_with_a_foreign_program_stays(bench):
    bench.program("cgroup")
    inner = f"{bench.cgroup}/inner"
    bench.attach(cgroup=inner, create_cgroup=True)
    with bench.load("cgroup", "foreign") as foreign, attachments.opened("cgroup", inner) as target:
        libbpf.attach(foreign, target, libbpf.ATTACH_CGROUP_SOCK_OPS, libbpf.F_ALLOW_MULTI)
        bench.attach(cgroup=inner, state="absent")
        assert [each.program_id for each in bench.on("cgroup", inner)] == [libbpf.program_info(foreign).id]


@pytest.mark.parametrize("where", ["", "/inner"])
def test_a_cgroup_that_is_taken_exclusively(bench, where):
    bench.program("cgroup")
    path = bench.cgroup + where
    os.makedirs(path, exist_ok=True)
    with bench.load("cgroup", "foreign") as foreign, attachments.opened("cgroup", bench.cgroup) as target:
        libbpf.attach(foreign, target, libbpf.ATTACH_CGROUP_SOCK_OPS)
        before = bench.state()
        for check in (True, False):
            done = bench.attach(cgroup=path, check=check)
            assert done["failed"]
            assert f"{bench.cgroup} holds a program that was attached exclusively" in done["msg"]
            assert bench.state() == before


def test_a_lost_manifest_is_written_again(bench):
    bench.program("cgroup")
    bench.attach(cgroup=bench.cgroup)
    before = bench.state()
    subprocess.run(["rm", "-r", str(bench.sandbox.state_dir)], check=True)
    done = bench.four_times(cgroup=bench.cgroup)
    assert bench.manifest()["attachments"] == [done["attachment"]]
    assert bench.state()[:3] == before[:3], "the link stayed"


@pytest.mark.parametrize("method", ["link", "legacy"])
@pytest.mark.parametrize("first", ["nothing", "old", "other method"])
def test_a_step_that_fails_undoes_the_ones_before(bench, method, first):
    """The manifest cannot be written: that is the last step, so the attachment itself is undone."""
    bench.program("cgroup")
    if first != "nothing":
        other = {"link": "legacy", "legacy": "link"}[method] if first == "other method" else method
        bench.attach(cgroup=bench.cgroup, method=other)
        bench.program("cgroup")
    before = [(each.program_id, each.method) for each in bench.on("cgroup", bench.cgroup)]
    manifests = bench.sandbox.state_dir / "manifests"
    manifests.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "full", manifests], check=True)
    try:
        failed = bench.attach(cgroup=bench.cgroup, method=method)
    finally:
        subprocess.run(["umount", manifests], check=True)
    assert failed["failed"]
    assert "manifest" in failed["msg"]
    assert [(each.program_id, each.method) for each in bench.on("cgroup", bench.cgroup)] == before
    assert not bench.attach(cgroup=bench.cgroup, method=method)["failed"]


# On a map.


@pytest.mark.parametrize(("method", "expected"), [("auto", "legacy"), ("legacy", "legacy"), ("link", "link")])
def test_a_map(bench, method, expected):
    number, peers = bench.program("map"), bench.map()
    if method == "link" and not attachments.has_links(hooks.SK_MSG):
        pytest.skip("this kernel has no links to maps")
    done = bench.four_times(map=bench.path("peers"), method=method)["attachment"]
    assert (done["method"], done["map_id"], done["cgroup"]) == (expected, peers, None)
    assert bench.on("map", bench.path("peers")) == [Attached(number, expected, done["link_id"])]
    new = bench.program("map")
    bench.four_times(map=bench.path("peers"), method=method)
    assert [each.program_id for each in bench.on("map", bench.path("peers"))] == [new]
    bench.four_times(map=bench.path("peers"), state="absent")
    assert bench.on("map", bench.path("peers")) == []


@pytest.mark.parametrize(("method", "other"), [("link", "legacy"), ("legacy", "link")])
def test_the_method_on_a_map_can_be_changed(bench, method, other):
    number, _peers = bench.program("map"), bench.map()
    bench.attach(map=bench.path("peers"), method=method)
    bench.four_times(map=bench.path("peers"), method=other)
    assert [(each.program_id, each.method) for each in bench.on("map", bench.path("peers"))] == [(number, other)]


def test_a_verdict_lost_behind_our_back_is_attached_again(bench):
    bench.program("map")
    bench.map()
    bench.attach(map=bench.path("peers"))
    os.unlink(bench.path("peers"))
    new = bench.map()
    done = bench.four_times(map=bench.path("peers"))["attachment"]
    assert done["map_id"] == new


def test_a_foreign_verdict_is_refused(bench):
    bench.program("map")
    bench.map()
    foreign = bench.program("map", "foreign", pin=False)
    attachments.attach_legacy(bench.path("peers"), foreign)
    for check in (True, False):
        done = bench.attach(map=bench.path("peers"), check=check)
        assert done["failed"]
        assert f"program {foreign} is attached to it (legacy), and it is not this collection's" in done["msg"]
        assert not bench.attach(map=bench.path("peers"), state="absent", check=check)["changed"]
    assert [each.program_id for each in bench.on("map", bench.path("peers"))] == [foreign]
    assert bench.manifest() is None or bench.manifest()["attachments"] == []


# Bad input.


def test_bad_input_gets_one_line_and_changes_nothing(bench, tmp_path):
    bench.program("cgroup")
    bench.program("map")
    bench.map()
    bench.map("table", libbpf.MAP_TYPE_HASH)
    os.mkdir(bench.path("folder"))
    before = bench.state()
    peers, sockops = bench.path("peers"), bench.path("cgroup")
    cases = [
        ({"cgroup": "/tmp"}, "cgroup /tmp: /tmp is on"),
        ({"cgroup": "/sys/fs/cgroup/unified/../cpu", "state": "absent"}, "not on cgroup2"),
        ({"cgroup": f"{bench.cgroup}/cgroup.procs"}, "is a file"),
        ({"map": bench.path("table")}, f"map: {bench.path('table')} is of type hash, which cannot hold sockets"),
        ({"map": sockops}, f"map: {sockops} is a pin of a program"),
        ({"map": bench.path("nothing")}, "map: nothing is pinned at"),
        ({"map": "/etc/passwd"}, "/etc/passwd is not a pin: it is not on a bpffs"),
        ({"map": bench.path("folder")}, "is a directory, not a pin"),
        ({"cgroup": bench.cgroup, "program": bench.path("map")}, "is of type sk_msg, but a cgroup takes sock_ops or"),
        ({"map": peers, "program": sockops}, "is of type sock_ops, but a map takes sk_msg or sk_skb;"),
        ({"cgroup": bench.cgroup, "program": peers}, f"program: {peers} is a pin of a map"),
        ({"cgroup": bench.cgroup, "program": bench.path("nothing")}, "program: nothing is pinned at"),
        ({"cgroup": bench.cgroup, "map": peers}, "mutually exclusive: cgroup|map"),
        ({"cgroup": bench.cgroup, "program": sockops, "programs": [sockops]}, "mutually exclusive: program|programs"),
        ({"cgroup": bench.cgroup, "programs": []}, "programs: the list is empty"),
        ({}, "one of the following is required: cgroup, map, netns"),
        ({"cgroup": bench.cgroup, "method": "hook"}, "value of method must be one of"),
    ]
    for options, words in cases:
        done = bench.attach(**options)
        assert done["failed"], options
        assert words in done["msg"], done["msg"]
        assert "\n" not in done["msg"]
        assert bench.state() == before, options


_NO_CGROUP2 = """
for point in $(awk '$0 ~ / - cgroup2 / {print $5}' /proc/self/mountinfo); do umount "$point" || exit 1; done
exec "$@"
"""
_NO_LIBBPF = """
for lib in /usr/lib/*/libbpf.so* /usr/lib64/libbpf.so*; do test ! -e "$lib" || mount --bind /dev/null "$lib"; done
exec "$@"
"""


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (("unshare", "--mount", "sh", "-c", _NO_CGROUP2, "sh"), "no cgroup2 filesystem is mounted"),
        (("unshare", "--mount", "sh", "-c", _NO_LIBBPF, "sh"), "libbpf.so.1 is not on this host; "),
        (("setpriv", "--bounding-set", "-all"), "Operation not permitted"),
    ],
    ids=["cgroup v1 only", "no libbpf", "no rights"],
)
def test_a_host_that_cannot_gets_one_line(bench, prefix, words):
    bench.program("cgroup")
    before = bench.state()
    given = {"program": bench.path("cgroup"), "cgroup": bench.cgroup, "state_dir": str(bench.sandbox.state_dir)}
    done = run_module("sockmap_attach", given, prefix=prefix)
    assert done["failed"]
    assert words in done["msg"], done["msg"]
    assert "\n" not in done["msg"]
    assert bench.state() == before


def test_the_place_of_the_link_taken_by_something_else(bench):
    bench.program("cgroup")
    done = bench.attach(cgroup=bench.cgroup)["attachment"]
    os.unlink(done["link_pin"])
    wait_until_detached(bench.sandbox.cgroup)
    bench.map(os.path.basename(done["link_pin"]))
    before = bench.state()
    failed = bench.attach(cgroup=bench.cgroup)
    assert failed["failed"]
    assert "is another map" in failed["msg"]
    assert bench.state() == before


def test_check_mode_on_a_bare_host(bench):
    """Nothing loaded, no cgroup, no bpffs, no state directory: what enable would do is said, and nothing is made."""
    absent = str(bench.sandbox.state_dir.parent / "no-bpffs" / "sockops")
    new = f"{bench.cgroup}/later"
    said = bench.attach(cgroup=new, create_cgroup=True, program=absent, check=True)
    assert not said["failed"], said
    assert said["changed"]
    assert f"{new}: directory" in said["diff"]["after"]
    assert '"method": "link"' in said["diff"]["after"]
    assert len(said["notes"]) == 1
    said = bench.attach(map=absent.replace("sockops", "peers"), program=absent, check=True)
    assert not said["failed"], said
    assert said["changed"]
    assert len(said["notes"]) == 2
    for check in (True, False):
        gone = bench.attach(cgroup=new, program=absent, state="absent", check=check)
        assert not gone["failed"], gone
        assert not gone["changed"]
    assert not os.path.exists(new)
    assert not bench.sandbox.state_dir.exists()
