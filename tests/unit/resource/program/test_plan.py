# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Truth tables of what sockmap_program decides: wanted and observed in, steps or a refusal out."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.btf import Field
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.map_spec import MapSpec, differences
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.model import LinkInfo, MapInfo, Pin, Program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import plan as planning
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program.plan import Identified, Load, Pinned

DIR = "/bpf/s"
OLD, NEW = "sha256:" + "0" * 64, "sha256:" + "1" * 64
PEERS = MapSpec("sockhash", 48, 8, 100, 0)
FLOWS = MapSpec("hash", 48, 64, 100, 0, {"value": [Field("bytes", 0, 64, "__u64")]}, 1)


def path(name):
    return f"{DIR}/{name}"


def program(name, number, digest=NEW, maps=(10, 11)):
    return Pin(path(name), "program", Program(number, name, 16, "", 0, tuple(maps), digest, 1))


def a_map(name, number):
    return Pin(path(name), "map", MapInfo(number, 1, name, 4, 4, 1, 0, 0, 0, 0))


def entry(digest=NEW, **ids):
    found = {
        "digest": digest,
        "object_sha256": "ab",
        "compiler": "clang",
        "config": {},
        "max_entries": {},
        "pins": {"verdict": path("verdict")},
        "map_pins": {"peers": path("peers"), "flows": path("flows")},
    }
    return dict(found, **ids)


IDS = {"program_ids": {"verdict": 1}, "program_tags": {"verdict": ""}, "map_ids": {"peers": 10, "flows": 11}}
WANTED = planning.Wanted("pair", DIR, entry(), {"verdict": (16, 7)}, {"peers": PEERS, "flows": FLOWS})
BARE = planning.Observed(pin_dir_exists=False)
CONVERGED = planning.Observed(
    pins={path("verdict"): program("verdict", 1), path("peers"): a_map("peers", 10), path("flows"): a_map("flows", 11)},
    maps={path("peers"): planning.HostMap(10, PEERS), path("flows"): planning.HostMap(11, FLOWS)},
    running={"peers": planning.HostMap(10, PEERS), "flows": planning.HostMap(11, FLOWS)},
    entry=entry(**IDS),
    stored=True,
)


def without(observed, *names):
    """The host after someone removed these pins."""
    gone = {path(name) for name in names}
    return observed._replace(
        pins={key: pin for key, pin in observed.pins.items() if key not in gone},
        maps={key: found for key, found in observed.maps.items() if key not in gone},
    )


def with_pin(observed, pin, spec=None):
    """The host after someone pinned this."""
    maps = {key: found for key, found in observed.maps.items() if key != pin.path}
    if spec:
        maps[pin.path] = planning.HostMap(pin.id, spec)
    return observed._replace(pins={**observed.pins, pin.path: pin}, maps=maps)


def with_old_program(observed=CONVERGED):
    old = dict(entry(OLD), **IDS)
    return with_pin(observed, program("verdict", 1, OLD))._replace(entry=old)


def steps(wanted, observed):
    return [(step.verb, step.subject) for step in planning.present(wanted, observed)]


RECORD = ("record", "manifest: programs.pair")
IDENTIFY = ("identify", "manifest: ids of pair")
LOAD = ("load", "programs of pair")
STORE = ("store", "object ab")
REPLACE = ("replace", path("verdict"))
PIN_PEERS, PIN_FLOWS, PIN_VERDICT = (("pin", path(name)) for name in ("peers", "flows", "verdict"))
GONE = CONVERGED._replace(running={})

TABLE = {
    "nothing to do": (CONVERGED, []),
    "bare host": (
        BARE,
        [("make_directory", DIR), STORE, LOAD, RECORD, PIN_PEERS, PIN_FLOWS, PIN_VERDICT, IDENTIFY],
    ),
    "another version is loaded": (with_old_program(), [LOAD, RECORD, REPLACE, IDENTIFY]),
    "after a reboot": (
        planning.Observed(pin_dir_exists=False, entry=entry(), stored=True, same_boot=False),
        [("make_directory", DIR), LOAD, RECORD, PIN_PEERS, PIN_FLOWS, PIN_VERDICT, IDENTIFY],
    ),
    "program pin lost": (without(CONVERGED, "verdict"), [LOAD, PIN_VERDICT, IDENTIFY]),
    "map pin lost, map alive": (without(CONVERGED, "peers"), [PIN_PEERS]),
    "map pin lost, map gone": (without(GONE, "flows"), [LOAD, PIN_FLOWS, REPLACE, IDENTIFY]),
    "all pins lost, maps alive": (
        without(CONVERGED, "verdict", "peers", "flows"),
        [LOAD, PIN_PEERS, PIN_FLOWS, PIN_VERDICT, IDENTIFY],
    ),
    "map pin taken by another map": (
        with_pin(CONVERGED, a_map("peers", 99), PEERS),
        [("replace", path("peers"))],
    ),
    "program pin taken since we pinned": (
        with_pin(CONVERGED, program("verdict", 99, None)),
        [LOAD, REPLACE, IDENTIFY],
    ),
    "object lost on disk": (CONVERGED._replace(stored=False), [STORE]),
    "manifest lost": (CONVERGED._replace(entry=None), [RECORD, IDENTIFY]),
    "manifest damaged": (CONVERGED._replace(damage="it is damaged"), [RECORD]),
    "manifest of another boot": (
        CONVERGED._replace(entry=entry(), same_boot=False),
        [RECORD, IDENTIFY],
    ),
    "killed before the ids were noted": (CONVERGED._replace(entry=entry()), [IDENTIFY]),
    "killed while replacing a pin": (
        CONVERGED._replace(leftovers=(path("verdict__new"),)),
        [("unpin", path("verdict__new"))],
    ),
    "killed before the programs were pinned": (
        without(CONVERGED, "verdict")._replace(entry=entry(), running={}),
        [LOAD, PIN_VERDICT, IDENTIFY],
    ),
    "an older version had more": (
        with_pin(
            CONVERGED._replace(
                entry=dict(CONVERGED.entry, pins={**CONVERGED.entry["pins"], "extra": path("extra")}),
            ),
            program("extra", 5, OLD),
        ),
        [RECORD, ("unpin", path("extra"))],
    ),
}


@pytest.mark.parametrize(("observed", "expected"), TABLE.values(), ids=TABLE.keys())
def test_present(observed, expected):
    assert steps(WANTED, observed) == expected


def load_step(wanted, observed):
    return next(step for step in planning.present(wanted, observed) if step.verb == "load")


def test_an_upgrade_goes_on_with_the_maps():
    assert load_step(WANTED, with_old_program()).need(Load).reuse == {"peers": 10, "flows": 11}


def test_unpinned_maps_of_live_programs_are_used_again():
    lost = without(with_old_program(), "peers", "flows")
    assert load_step(WANTED, lost).need(Load).reuse == {"peers": 10, "flows": 11}


def test_the_replaced_program_is_noted_as_draining():
    identify = planning.present(WANTED, with_old_program())[-1]
    assert identify.need(Identified).replaced == {"verdict": 1}


def test_an_intruder_is_not_noted_as_draining():
    identify = planning.present(WANTED, with_pin(CONVERGED, program("verdict", 99, None)))[-1]
    assert identify.need(Identified).replaced == {}


def test_record_shows_what_changes_and_nothing_else():
    wanted = WANTED._replace(entry=dict(WANTED.entry, config={"port": 1}))
    step = next(step for step in planning.present(wanted, CONVERGED) if step.verb == "record")
    assert (step.before, step.after) == ({"config": {}}, {"config": {"port": 1}})


UNCLAIMED = CONVERGED._replace(entry=None)
REFUSALS = {
    "foreign program": (
        with_pin(UNCLAIMED, program("verdict", 99, None)),
        f"{DIR}/verdict is taken by a foreign program verdict \\(id 99\\)",
    ),
    "a map where the program belongs": (with_pin(UNCLAIMED, a_map("verdict", 99)), "foreign map verdict"),
    "a program where a map belongs": (with_pin(UNCLAIMED, program("peers", 99)), "foreign program peers"),
    "a link": (
        with_pin(UNCLAIMED, Pin(path("peers"), "link", LinkInfo(7, 3, 1, 0, 0, None))),
        "peers is taken by a foreign link \\(id 7\\)",
    ),
    "a directory, even where we pinned": (
        with_pin(CONVERGED, Pin(path("verdict"), "directory", None)),
        "verdict is taken by a foreign directory",
    ),
    "foreign, with a manifest of another boot": (
        with_pin(CONVERGED, program("verdict", 99, None))._replace(entry=entry(), same_boot=False),
        "foreign program",
    ),
    "another object of this collection": (
        CONVERGED._replace(taken={path("verdict"): "other"}),
        "is the pin of other, another program of this collection",
    ),
}


@pytest.mark.parametrize(("observed", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_present_refuses(observed, message):
    with pytest.raises(SockredirError, match=message):
        planning.present(WANTED, observed)


def changed(**fields):
    return WANTED._replace(maps={"peers": PEERS, "flows": FLOWS._replace(**fields)})


def test_an_incompatible_map_is_refused_field_by_field():
    wider = [Field("bytes", 0, 32, "__u32"), Field("messages", 32, 32, "__u32")]
    with pytest.raises(SockredirError) as caught:
        planning.present(changed(max_entries=200, layout={"value": wider}, layout_version=2), with_old_program())
    line = str(caught.value)
    assert line.startswith(f"the map {DIR}/flows does not fit the new object: max_entries: 100 pinned, 200 wanted; ")
    assert "layout version: 1 pinned, 2 wanted" in line
    assert "value.bytes: 64 bits at byte 0 pinned, 32 bits at byte 0 wanted" in line
    assert "value.messages: absent pinned, 32 bits at byte 4 wanted" in line
    assert "on_incompatible_map=recreate" in line


def test_a_long_list_of_differences_is_cut_in_the_line_only():
    with pytest.raises(SockredirError) as caught:
        planning.present(changed(type="array", key_size=4, value_size=8, max_entries=1, flags=1), with_old_program())
    assert "(and 1 more)" in str(caught.value)
    assert len(caught.value.detail.splitlines()) == 5


def test_an_incompatible_map_is_recreated_when_asked():
    wanted = changed(max_entries=200)._replace(recreate=True)
    plan = planning.present(wanted, with_old_program())
    assert [(step.verb, step.subject) for step in plan] == [LOAD, RECORD, ("replace", path("flows")), REPLACE, IDENTIFY]
    assert plan[0].need(Load).reuse == {"peers": 10}
    assert plan[2].detail == Pinned("map", "flows", None)


def test_a_shared_map_is_where_the_other_object_has_it():
    moved = with_pin(CONVERGED, a_map("flows", 99), FLOWS)._replace(taken={path("flows"): "other"})
    assert steps(WANTED, moved) == [LOAD, REPLACE, IDENTIFY]
    assert load_step(WANTED, moved).need(Load).reuse == {"peers": 10, "flows": 99}


@pytest.mark.parametrize(
    ("pinned", "wanted", "lines"),
    [
        (FLOWS, FLOWS, []),
        (FLOWS, FLOWS._replace(layout={}), []),
        (FLOWS, FLOWS._replace(layout_version=None), []),
        (FLOWS, FLOWS._replace(layout_version=2), ["layout version: 1 pinned, 2 wanted"]),
        (FLOWS, FLOWS._replace(type="array"), ["type: hash pinned, array wanted"]),
        (FLOWS, FLOWS._replace(flags=1), ["flags: 0 pinned, 1 wanted"]),
        (FLOWS, FLOWS._replace(key_size=4), ["key_size: 48 pinned, 4 wanted"]),
        (
            FLOWS,
            FLOWS._replace(layout={"value": [Field("octets", 0, 64, "__u64")]}),
            [
                "value.bytes: 64 bits at byte 0 pinned, absent wanted",
                "value.octets: absent pinned, 64 bits at byte 0 wanted",
            ],
        ),
        (FLOWS, FLOWS._replace(layout={"value": [Field("bytes", 0, 64, "u64")]}), []),
        (
            MapSpec("hash", 4, 4, 1, 0, {"value": [Field("a", 3, 2, "int")]}),
            MapSpec("hash", 4, 4, 1, 0, {"value": [Field("a", 4, 2, "int")]}),
            ["value.a: 2 bits at byte 0 bit 3 pinned, 2 bits at byte 0 bit 4 wanted"],
        ),
    ],
)
def test_differences(pinned, wanted, lines):
    assert differences(pinned, wanted) == lines


FORGET = ("forget", "manifest: programs.pair")
UNPIN_ALL = [("unpin", path(name)) for name in ("verdict", "flows", "peers")]
ABSENT = {
    "never was": (CONVERGED._replace(entry=None), []),
    "all of it": (CONVERGED, [*UNPIN_ALL, FORGET, ("remove_directory", DIR)]),
    "something else is pinned beside": (CONVERGED._replace(others=(path("x"),)), [*UNPIN_ALL, FORGET]),
    "pins are gone already": (
        without(CONVERGED, "verdict", "peers", "flows"),
        [FORGET, ("remove_directory", DIR)],
    ),
    "the directory too": (
        without(CONVERGED, "verdict", "peers", "flows")._replace(pin_dir_exists=False),
        [FORGET],
    ),
    "a foreign program at our pin stays": (
        with_pin(CONVERGED, program("verdict", 99, None)),
        [*UNPIN_ALL[1:], FORGET],
    ),
    "a foreign map at our pin stays": (with_pin(CONVERGED, a_map("peers", 99), PEERS), [*UNPIN_ALL[:2], FORGET]),
    "a map shared with another object stays": (
        CONVERGED._replace(taken={path("flows"): "other"}),
        [UNPIN_ALL[0], UNPIN_ALL[2], FORGET],
    ),
    "a killed run's pin goes too": (
        CONVERGED._replace(leftovers=(path("verdict__new"),)),
        [*UNPIN_ALL, ("unpin", path("verdict__new")), FORGET, ("remove_directory", DIR)],
    ),
    "killed before the ids were noted": (
        CONVERGED._replace(entry=entry()),
        [*UNPIN_ALL, FORGET, ("remove_directory", DIR)],
    ),
}


@pytest.mark.parametrize(("observed", "expected"), ABSENT.values(), ids=ABSENT.keys())
def test_absent(observed, expected):
    assert [(step.verb, step.subject) for step in planning.absent("pair", DIR, observed)] == expected


def test_absent_refuses_what_is_attached():
    with pytest.raises(SockredirError, match=r"pair is still attached to link 7, /cg; detach it first: sockmap_attach"):
        planning.absent("pair", DIR, CONVERGED._replace(attached=("link 7", "/cg")))


def test_the_digest_covers_all_that_makes_a_program():
    base = planning.digest("ab", {"v": (16, 7)}, {"a": 1}, {"m": 2})
    others = [
        planning.digest("ac", {"v": (16, 7)}, {"a": 1}, {"m": 2}),
        planning.digest("ab", {"v": (16, 0)}, {"a": 1}, {"m": 2}),
        planning.digest("ab", {"w": (16, 7)}, {"a": 1}, {"m": 2}),
        planning.digest("ab", {"v": (16, 7)}, {"a": 2}, {"m": 2}),
        planning.digest("ab", {"v": (16, 7)}, {"a": 1}, {}),
    ]
    assert len({base, *others}) == 6
    assert planning.digest("ab", {"v": (16, 7)}, {"b": 1, "a": 2}, {}) == planning.digest(
        "ab", {"v": (16, 7)}, {"a": 2, "b": 1}, {}
    )
    assert len(base) == len("sha256:") + 64


@pytest.mark.parametrize(
    ("there", "expected"),
    [(program("receive", 7), ["unpin"]), (program("receive", 8), []), (a_map("receive", 8), []), (None, [])],
)
def test_a_rollback_takes_away_the_pins_that_it_was_told_of(there, expected):
    leaving = CONVERGED._replace(entry=entry(**IDS, leaving_pins={path("receive"): 7}))
    observed = with_pin(leaving, there) if there else leaving
    assert [step.verb for step in planning.present(WANTED, observed)] == expected
