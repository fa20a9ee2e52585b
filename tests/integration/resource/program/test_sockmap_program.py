# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockmap_program on the live kernel: idempotence, upgrade, removal, with connections open."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.transaction import apply
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import compilers
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, objects
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import planned
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program.apply import handlers
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.snapshot import Snapshot
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest, store
from support.connection import connection
from support.waiting import wait_for

MAPS = {"events", "flows", "peers"}
PROGRAMS = {"sockops", "verdict"}


def ids(result):
    return {name: one["id"] for part in ("programs", "maps") for name, one in result[part].items()}


def test_check_real_again_check(pair):
    before = pair.everything()
    foretold = pair.run(check=True)
    assert foretold["changed"] is True
    assert pair.everything() == before
    done = pair.run()
    assert done["changed"] is True
    assert done["diff"] == foretold["diff"]
    assert set(done["programs"]) == PROGRAMS
    assert set(done["maps"]) == MAPS
    assert done["compiler"] == "clang"
    assert os.path.dirname(done["object"]) == str(pair.sandbox.state_dir / "objects")
    assert pair.pins() == {name: ("program" if name in PROGRAMS else "map", one) for name, one in ids(done).items()}
    converged = pair.everything()
    for check in (False, True):
        again = pair.run(check=check)
        assert again["changed"] is False
        assert again["diff"] == {"before": "", "after": ""}
        assert ids(again) == ids(done)
        assert again["digest"] == done["digest"]
        assert pair.everything() == converged


def test_foretold_and_done_are_the_same_for_an_upgrade_and_for_absent(pair):
    pair.run()
    for options in ({"config": {"first_port": 1000}}, {"state": "absent"}):
        foretold = pair.run(check=True, **options)
        done = pair.run(**options)
        assert done["changed"] is foretold["changed"] is True
        assert done["diff"] == foretold["diff"]


def test_pins_are_for_root_alone(pair):
    pair.run()
    assert os.stat(pair.sandbox.pin_dir).st_mode & 0o777 == 0o700
    assert os.stat(pair.sandbox.state_dir).st_mode & 0o777 == 0o700


def test_a_converged_run_starts_no_compiler(pair, monkeypatch):
    pair.run()
    request = program_source.Options("pair", str(pair.sandbox.pin_dir), str(pair.sandbox.state_dir), str(pair.src))

    def compiled(*_arguments):
        raise AssertionError("compiled")

    monkeypatch.setattr(compilers, "compile_source", compiled)
    assert program.present(request).plan == []


def test_the_identity_can_be_read_from_the_kernel(pair):
    done = pair.run(config={"label": "here"})
    for one in done["programs"].values():
        assert objects.program_by_id(one["id"]).digest == done["digest"]


def test_config_and_max_entries_and_defines_arrive(pair):
    config = {"first_port": 4660, "last_port": "0xabcd", "quiet": True, "offset": -7, "label": "hello"}
    done = pair.run(config=config, max_entries={"peers": 1000, "events": 8192}, defines={"WIDER": None})
    with libbpf.Map.open_id(done["maps"]["peers"]["id"]) as peers:
        assert peers.info.max_entries == 1000
    with libbpf.Map.open_id(done["maps"]["events"]["id"]) as events:
        assert events.info.max_entries == 8192
    with libbpf.Map.open_id(done["maps"]["flows"]["id"]) as flows:
        assert flows.info.value_size == 16
    with libbpf.program_by_id(done["programs"]["verdict"]["id"]) as verdict:
        numbers = libbpf.program_info(verdict).map_ids
    maps = [libbpf.Map.open_id(number) for number in numbers]
    rodata = next(one.lookup(bytes(4)) for one in maps if one.info.name == "pair.rodata")
    assert struct.unpack_from("<IH?xq16s", rodata) == (4660, 0xABCD, True, -7, b"hello".ljust(16, b"\0"))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"config": {"first_port": 2}}, "another config"),
        ({"max_entries": {"flows": 64, "peers": 64}}, "sizes that the source has anyway"),
        ({"defines": {"NEW": 1}}, "another define"),
    ],
)
def test_an_upgrade_keeps_the_maps(pair, options, name):
    old, new = ids(pair.run()), ids(pair.run(**options))
    assert {one: new[one] for one in MAPS} == {one: old[one] for one in MAPS}, name
    assert new["verdict"] != old["verdict"] or options == {"defines": {"NEW": 1}}


def test_a_change_of_an_included_file_is_a_change(pair):
    old = pair.run()
    header = pair.src.parent / "pair.h"
    header.write_text(header.read_text().replace("#define PAIR_H", "#define PAIR_H\n#define MORE 1"))
    assert pair.run()["changed"] is True
    assert ids(pair.run())["peers"] == ids(old)["peers"]


OTHER = {"config": {"last_port": 65534}}


def test_an_upgrade_under_an_open_connection(pair):
    old = pair.run()
    with pair.attached(), connection(pair.sandbox.cgroup) as live:
        live.send("client", 1000)
        assert live.redirected("client")
        new = pair.run(**OTHER)
        assert new["changed"] is True
        assert ids(new)["peers"] == ids(old)["peers"]
        assert {one["program_id"] for one in new["draining"]} == {ids(old)[name] for name in PROGRAMS}
        live.send("client", 1000)
        assert live.receive("server", 2000)
    with pair.attached(), connection(pair.sandbox.cgroup) as live:
        live.send("server", 5000)
        assert live.redirected("server")
        assert live.receive("client", 5000)
    wait_for(lambda: pair.run(**OTHER)["draining"] == [])


def test_old_programs_drain_with_their_connections(pair):
    old = pair.run()
    with contextlib.ExitStack() as open_connection:
        with pair.attached():
            live = open_connection.enter_context(connection(pair.sandbox.cgroup))
            live.send("client", 1000)
        pair.run(**OTHER)
        with pair.attached():
            live.send("client", 1000)
            assert live.redirected("client")
            assert live.receive("server", 2000)
            draining = pair.run(**OTHER)["draining"]
            assert [(one["name"], one["program_id"]) for one in draining] == [("verdict", ids(old)["verdict"])]
    wait_for(lambda: pair.run(**OTHER)["draining"] == [])
    assert objects.program_by_id(ids(old)["verdict"]) is None


def test_absent_never_loses_unread_data_of_a_live_connection(pair):
    done = pair.run()
    with contextlib.ExitStack() as open_connection:
        with pair.attached():
            live = open_connection.enter_context(connection(pair.sandbox.cgroup))
            live.send("client", 60000)
            live.send("server", 40000)
        gone = pair.run(state="absent")
        assert gone["changed"] is True
        assert not pair.sandbox.pin_dir.exists()
        assert [one["name"] for one in gone["draining"]] == ["verdict"]
        live.send("client", 5000)  # the socket keeps the program, the program the map
        assert live.redirected("client")
        assert live.receive("server", 65000)
        assert live.receive("client", 40000)
        again = pair.run(state="absent")
        assert again["changed"] is False
        assert again["draining"] == gone["draining"]
    wait_for(lambda: pair.run(state="absent")["draining"] == [])
    wait_for(lambda: not set(libbpf.map_ids()) & {ids(done)[name] for name in MAPS})
    assert not set(libbpf.program_ids()) & {ids(done)[name] for name in PROGRAMS}


def test_absent_refuses_while_attached(pair):
    pair.run()
    with pair.attached():
        before = pair.everything()
        refused = pair.run(state="absent")
        assert refused["msg"] == (
            f"pair is still attached to the map {pair.sandbox.pin_dir}/peers; "
            "detach it first: sockmap_attach with state=absent"
        )
        assert pair.everything() == before
        foretold = pair.run(state="absent", check=True)
        assert foretold["changed"] is True
        assert "detach it before removing it" in foretold["notes"][0]


def test_absent_refuses_while_a_link_holds(pair):
    pair.run()
    with libbpf.get(str(pair.sandbox.pin_dir / "sockops")) as sockops:
        cgroup = os.open(pair.sandbox.cgroup, os.O_RDONLY)
        with libbpf.Fd(cgroup), libbpf.create_link(sockops, cgroup, libbpf.ATTACH_CGROUP_SOCK_OPS) as link:
            number = libbpf.link_info(link).id
            assert f"pair is still attached to link {number};" in pair.run(state="absent")["msg"]
    assert pair.run(state="absent")["failed"] is False


def test_absent_on_a_host_that_never_had_it(pair):
    result = pair.run(state="absent", src=None)
    assert result["changed"] is False
    assert not pair.sandbox.pin_dir.exists()


def test_a_wider_map_is_refused_then_recreated(pair):
    old = pair.run()
    before = pair.everything()
    refused = pair.run(defines={"WIDER": 1})
    assert refused["msg"].startswith(
        f"the map {pair.sandbox.pin_dir}/flows does not fit the new object: value_size: 8 pinned, 16 wanted; "
        "value.bytes: absent pinned, 64 bits at byte 8 wanted; "
    )
    assert pair.everything() == before
    new = pair.run(defines={"WIDER": 1}, on_incompatible_map="recreate")
    assert ids(new)["flows"] != ids(old)["flows"]
    assert ids(new)["peers"] == ids(old)["peers"]
    assert pair.run(defines={"WIDER": 1})["changed"] is False


def test_a_layout_version_of_its_own_is_compared(pair):
    pair.edit("static __u64 opened;", "const volatile __u32 bpf_metadata_layout = 1;\nstatic __u64 opened;")
    assert pair.run()["failed"] is False
    pair.edit("bpf_metadata_layout = 1", "bpf_metadata_layout = 2")
    assert "layout version: 1 pinned, 2 wanted" in pair.run()["msg"]
    assert pair.run(on_incompatible_map="recreate")["failed"] is False
    assert pair.run()["changed"] is False


def test_an_object_file_does_as_well(pair):
    built = pair.src.with_suffix(".o")
    built.write_bytes(compilers.compile_clang(str(pair.src), {}).data)
    checksum = hashlib.sha256(built.read_bytes()).hexdigest()
    done = pair.run(src=str(built), checksum=f"sha256:{checksum}")
    assert done["compiler"] == "object"
    assert done["changed"] is True
    assert pair.run(src=str(built), checksum=checksum)["changed"] is False


@pytest.mark.parametrize("lost", ["verdict", "sockops", "peers", "flows", "events"])
def test_a_lost_pin_is_made_again_with_the_same_maps(pair, lost):
    old = pair.run()
    os.unlink(pair.sandbox.pin_dir / lost)
    new = pair.run()
    assert new["changed"] is True
    kept = MAPS - {lost} if lost == "flows" else MAPS  # no program uses flows: it went with its pin
    assert {name: ids(new)[name] for name in kept} == {name: ids(old)[name] for name in kept}
    assert pair.run()["changed"] is False


def test_a_program_put_in_our_place_gives_way(pair):
    pair.run()
    path = str(pair.sandbox.pin_dir / "verdict")
    os.unlink(path)
    pin_foreign(path)
    assert "program intruder" in pair.run(check=True)["diff"]["before"]
    assert pair.run()["changed"] is True
    assert pair.run()["changed"] is False


def test_a_map_put_in_our_place_gives_way(pair):
    old = pair.run()
    path = str(pair.sandbox.pin_dir / "peers")
    os.unlink(path)
    with libbpf.create_map(libbpf.MAP_TYPE_SOCKHASH, "peers", 4, 8, 64) as intruder:
        libbpf.pin(intruder, path)
    assert ids(pair.run()) == ids(old)


def pin_foreign(path):
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
    with libbpf.load_program(libbpf.PROG_TYPE_SK_MSG, "intruder", code, libbpf.ATTACH_SK_MSG_VERDICT) as foreign:
        libbpf.pin(foreign, path)


def test_two_objects_share_a_map(pair):
    first = pair.run()
    second = pair.src.with_name("second.bpf.c")
    text = pair.src.read_text()
    for old, new in (("int sockops(", "int second_ops("), ("int verdict(", "int second_verdict(")):
        text = text.replace(old, new)
    second.write_text(text)
    other = pair.run(name="second", src=str(second))
    assert ids(other)["peers"] == ids(first)["peers"]
    pair.run(name="second", state="absent")
    assert set(pair.pins()) == PROGRAMS | MAPS
    assert pair.run()["changed"] is False


def test_an_object_without_a_place_for_its_identity_is_known_by_its_ids(pair):
    pair.edit('const volatile char bpf_metadata_digest[72] = "";', "")
    done = pair.run()
    again = pair.run()
    assert again["changed"] is False
    assert ids(again) == ids(done)
    assert pair.run(config={"quiet": True})["changed"] is True


def test_the_stored_object_can_be_loaded_again_without_source_or_compiler(pair):
    pair.run(config={"first_port": 7})
    digest = pair.run(config={"first_port": 7})["digest"]
    for name in os.listdir(pair.sandbox.pin_dir):
        os.unlink(pair.sandbox.pin_dir / name)
    pair.src.unlink()
    state_dir = str(pair.sandbox.state_dir)
    with planned.recorded("pair", manifest.current(state_dir), Snapshot(state_dir)) as found:
        apply(found.steps, handlers(state_dir, found))
    assert objects.at(str(pair.sandbox.pin_dir / "verdict")).object.digest == digest
    assert set(pair.pins()) == PROGRAMS | MAPS


def test_only_objects_that_are_needed_stay_on_disk(pair):
    for number in range(4):
        pair.run(defines={"NUMBER": number})
        pair.edit("return SK_PASS;", "return SK_PASS; /* longer */")
    document = manifest.current(str(pair.sandbox.state_dir))
    assert store.stored(str(pair.sandbox.state_dir)) == manifest.objects(document)
