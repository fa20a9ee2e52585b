# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps attach and detach: a row for each thing that can be found on a host."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import hooks
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.model import Attached, PinnedLink
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import plan as attachment
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Observed, Wanted, plan

ON_CGROUP = Wanted("/b/sockops", "cgroup", "/cg/x")
ON_MAP = Wanted("/b/verdict", "map", "/b/peers")
ON_NETNS = Wanted("/b/inbound", "netns", "/proc/self/ns/net")
RECEIVE = Wanted("/b/receive", "map", "/b/peers")
NEEDY = RECEIVE._replace(needs="one_queue")
NEW, OLD, FOREIGN = 20, 10, 99
FOUND = Observed(program_id=NEW, target_id=5, ours=frozenset({NEW, OLD}))


def linked(program_id, link_id=7):
    return Attached(program_id, "link", link_id)


def legacy(program_id):
    return Attached(program_id, "legacy")


def pinned(program_id, target_id=5):
    return PinnedLink(7, program_id, target_id)


def verbs(wanted, observed):
    return [step.verb for step in plan(wanted, observed) if step.verb != "record"]


@pytest.mark.parametrize(
    ("change", "observed", "expected"),
    [
        # Nothing there yet: by the method asked for, or the best that the kernel has.
        ({}, {}, ["attach_link"]),
        ({}, {"links": False}, ["attach_legacy"]),
        ({"method": "legacy"}, {}, ["attach_legacy"]),
        ({"create_cgroup": True}, {"target_id": None, "missing": ("/cg/x",)}, ["create_cgroup", "attach_link"]),
        (
            {"create_cgroup": True},
            {"target_id": None, "missing": ("/cg/x",), "inactive_slice": "x.slice"},
            ["create_cgroup", "start_slice", "attach_link"],
        ),
        ({}, {"inactive_slice": "x.slice"}, ["start_slice", "attach_link"]),
        # As it should be.
        ({}, {"attached": (linked(NEW),), "pinned": pinned(NEW)}, []),
        ({}, {"attached": (legacy(NEW),)}, []),
        ({}, {"attached": (linked(FOREIGN, 8), linked(NEW)), "pinned": pinned(NEW)}, []),
        # An older program of this collection.
        ({}, {"attached": (linked(OLD),), "pinned": pinned(OLD)}, ["replace_link"]),
        ({}, {"attached": (linked(FOREIGN),), "pinned": pinned(FOREIGN)}, ["replace_link"]),
        ({}, {"attached": (legacy(OLD),)}, ["replace_legacy"]),
        # Another method.
        ({"method": "link"}, {"attached": (legacy(NEW),)}, ["attach_link", "detach_legacy"]),
        ({"method": "legacy"}, {"attached": (linked(NEW),), "pinned": pinned(NEW)}, ["attach_legacy", "detach_link"]),
        # Twice, by whoever's hand.
        ({}, {"attached": (linked(NEW, 8), linked(NEW)), "pinned": pinned(NEW)}, ["detach_link"]),
        ({}, {"attached": (linked(NEW), legacy(NEW)), "pinned": pinned(NEW)}, ["detach_legacy"]),
        ({}, {"attached": (linked(OLD), legacy(OLD)), "pinned": pinned(OLD)}, ["replace_link", "detach_legacy"]),
        ({}, {"attached": (legacy(OLD), legacy(NEW))}, ["detach_legacy"]),
        ({"method": "legacy"}, {"attached": (linked(NEW, 8), legacy(NEW))}, ["detach_link"]),
        # One of our links without its pin, a pin whose cgroup died, a pin whose link is elsewhere.
        ({}, {"attached": (linked(NEW, 8),)}, ["attach_link", "detach_link"]),
        ({}, {"pinned": pinned(NEW, 0)}, ["attach_link"]),
        ({}, {"pinned": pinned(NEW, 6)}, ["attach_link"]),
        ({"method": "legacy"}, {"pinned": pinned(NEW, 0)}, ["attach_legacy", "unpin_link"]),
        # Foreign programs are left alone.
        ({}, {"attached": (legacy(FOREIGN),)}, ["attach_link"]),
        # The kernel forbids new ones, but ours is there already.
        ({}, {"attached": (linked(OLD),), "pinned": pinned(OLD), "exclusive": "/cg"}, ["replace_link"]),
        # Check mode on a host that has nothing yet.
        ({"check": True}, {"program_id": None, "target_id": None, "ours": frozenset()}, ["attach_link"]),
        # Absent.
        ({"present": False}, {}, []),
        ({"present": False}, {"attached": (linked(NEW),), "pinned": pinned(NEW)}, ["detach_link"]),
        ({"present": False}, {"attached": (legacy(OLD), linked(NEW, 8))}, ["detach_legacy", "detach_link"]),
        ({"present": False}, {"attached": (legacy(FOREIGN),)}, []),
        ({"present": False}, {"pinned": pinned(NEW, 0)}, ["unpin_link"]),
        ({"present": False}, {"removable": ("/cg/x/y", "/cg/x")}, ["remove_cgroup", "remove_cgroup"]),
        ({"present": False}, {"removable": ("/cg/x",), "attached": (legacy(FOREIGN),)}, []),
        ({"present": False}, {"program_id": None, "target_id": None, "ours": frozenset()}, []),
    ],
)
def test_a_cgroup(change, observed, expected):
    assert verbs(ON_CGROUP._replace(**change), FOUND._replace(**observed)) == expected


@pytest.mark.parametrize(
    ("change", "observed", "expected"),
    [
        ({}, {}, ["attach_link"]),
        ({"method": "link"}, {}, ["attach_link"]),
        ({}, {"attached": (linked(NEW),), "pinned": pinned(NEW)}, []),
        ({}, {"attached": (linked(OLD),), "pinned": pinned(OLD)}, ["replace_link"]),
        ({}, {"attached": (linked(FOREIGN, 8),)}, ["attach_link"]),
        ({}, {"attached": (linked(NEW, 8), linked(NEW)), "pinned": pinned(NEW)}, ["detach_link"]),
        # The namespace of the pinned link is gone, or is another one.
        ({}, {"pinned": pinned(NEW, 0)}, ["attach_link"]),
        ({"present": False}, {"attached": (linked(OLD),), "pinned": pinned(OLD)}, ["detach_link"]),
        ({"present": False}, {"pinned": pinned(NEW, 0), "target_id": None}, ["unpin_link"]),
        ({"present": False}, {"attached": (linked(FOREIGN, 8),)}, []),
        ({"check": True}, {"program_id": None, "target_id": None, "ours": frozenset()}, ["attach_link"]),
    ],
)
def test_a_network_namespace(change, observed, expected):
    assert verbs(ON_NETNS._replace(**change), FOUND._replace(**observed)) == expected


@pytest.mark.parametrize(
    ("change", "observed", "expected"),
    [
        ({}, {}, ["attach_legacy"]),
        ({"method": "link"}, {}, ["attach_link"]),
        ({}, {"attached": (legacy(NEW),)}, []),
        ({}, {"attached": (linked(NEW),), "pinned": pinned(NEW)}, []),
        ({}, {"attached": (legacy(OLD),)}, ["replace_legacy"]),
        ({}, {"attached": (linked(OLD),), "pinned": pinned(OLD)}, ["replace_link"]),
        # The kernel takes a link over a program without one, but not the other way round.
        ({"method": "link"}, {"attached": (legacy(OLD),)}, ["attach_link"]),
        ({"method": "legacy"}, {"attached": (linked(OLD),), "pinned": pinned(OLD)}, ["detach_link", "attach_legacy"]),
        ({"present": False}, {"attached": (legacy(NEW),)}, ["detach_legacy"]),
        ({"present": False}, {"attached": (legacy(FOREIGN),)}, []),
        ({"check": True}, {"program_id": None, "target_id": None, "ours": frozenset()}, ["attach_legacy"]),
        # Ours was there, on this very map, and was overwritten: its place is taken back.
        (
            {},
            {"attached": (legacy(FOREIGN),), "record": {"program_id": NEW, "map_id": 5, "method": "legacy"}},
            ["replace_legacy"],
        ),
    ],
)
@pytest.mark.parametrize(("wanted", "hook"), [(ON_MAP, hooks.SK_MSG), (RECEIVE, hooks.SK_SKB)])
def test_a_map(wanted, hook, change, observed, expected):
    assert verbs(wanted._replace(**change), FOUND._replace(hook=hook, **observed)) == expected


@pytest.mark.parametrize(
    ("wanted", "observed", "words"),
    [
        (ON_CGROUP, {"program_id": None}, "program: nothing is pinned at /b/sockops; load it first"),
        (
            ON_NETNS,
            {"target_id": None},
            "netns: /proc/self/ns/net does not exist; name the file",
        ),
        (ON_NETNS._replace(method="legacy"), {}, "method: a network namespace takes programs only by links"),
        (
            ON_NETNS._replace(method="link"),
            {"links": False},
            "method: this kernel has no links to a netns (they need Linux 5.9)",
        ),
        (ON_CGROUP, {"target_id": None}, "cgroup: /cg/x does not exist; create it, or set create_cgroup"),
        (ON_MAP, {"target_id": None}, "map: nothing is pinned at /b/peers"),
        (ON_CGROUP._replace(method="link"), {"links": False}, "Linux 5.7"),
        (ON_MAP._replace(method="link"), {"links": False}, "Linux 6.10"),
        (ON_CGROUP, {"exclusive": "/cg"}, "/cg holds a program that was attached exclusively"),
        (
            ON_MAP,
            {"attached": (legacy(FOREIGN),)},
            "program 99 is attached to it (legacy), and it is not this collection's",
        ),
        (
            ON_MAP,
            {"attached": (legacy(FOREIGN),), "record": {"program_id": NEW, "map_id": 4, "method": "legacy"}},
            "program 99 is attached to it",
        ),
        (
            ON_MAP,
            {"attached": (linked(FOREIGN),), "record": {"program_id": NEW, "map_id": 5, "method": "legacy"}},
            "program 99 is attached to it (link)",
        ),
        (ON_MAP._replace(check=True), {"attached": (linked(FOREIGN),)}, "program 99 is attached to it (link)"),
    ],
)
def test_what_is_refused(wanted, observed, words):
    with pytest.raises(SockredirError) as caught:
        plan(wanted, FOUND._replace(**observed))
    assert words in str(caught.value)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("change", "observed", "expected"),
    [
        ({}, {"met": True}, ["attach_legacy"]),
        ({}, {"met": False}, []),
        # Not known to be right is not right.
        ({}, {"met": None}, []),
        ({"needs": None}, {"met": None}, ["attach_legacy"]),
        ({}, {"met": True, "attached": (legacy(NEW),)}, []),
        ({}, {"met": True, "attached": (legacy(OLD),)}, ["replace_legacy"]),
        # It was attached where it should not be.
        ({}, {"met": False, "attached": (legacy(NEW),)}, ["detach_legacy"]),
        ({}, {"met": False, "attached": (legacy(OLD),)}, ["detach_legacy"]),
        ({}, {"met": False, "attached": (linked(NEW),), "pinned": pinned(NEW)}, ["detach_link"]),
        ({}, {"met": False, "pinned": pinned(NEW, 0)}, ["unpin_link"]),
        ({"method": "link"}, {"met": False}, []),
        ({"check": True}, {"met": False, "program_id": None, "target_id": None, "ours": frozenset()}, []),
        ({"present": False}, {"met": None, "attached": (legacy(NEW),)}, ["detach_legacy"]),
    ],
)
def test_a_program_that_needs_something_of_the_kernel(change, observed, expected):
    assert verbs(NEEDY._replace(**change), FOUND._replace(hook=hooks.SK_SKB, **observed)) == expected


@pytest.mark.parametrize("method", ["auto", "link"])
def test_a_withheld_program_is_recorded_and_no_difference(method):
    wanted = NEEDY._replace(method=method)
    observed = FOUND._replace(hook=hooks.SK_SKB, met=False)
    assert [step.verb for step in plan(wanted, observed)] == ["record"]
    entry = attachment.record(wanted, observed)
    assert (entry["needs"], entry["met"], entry["link_pin"], entry["link_id"]) == ("one_queue", False, None, None)
    assert plan(wanted, observed._replace(record=entry)) == []
    assert plan(wanted, observed._replace(record=entry, met=None)) == [], "not tried is no other state"
    gained = observed._replace(record=entry, met=True)
    assert verbs(wanted, gained) == [f"attach_{'link' if method == 'link' else 'legacy'}"]


def test_a_foreign_program_in_a_withheld_ones_place_is_refused():
    """Also with ours on record: what a kernel cannot bear from us it cannot bear from others."""
    entry = {"program_id": NEW, "map_id": 5, "method": "legacy"}
    observed = FOUND._replace(hook=hooks.SK_SKB, met=False, attached=(legacy(FOREIGN),), record=entry)
    with pytest.raises(SockredirError, match="program 99 is attached to it"):
        plan(NEEDY, observed)


def test_the_record_is_written_last_and_forgotten_before_the_cgroup_goes():
    assert [step.verb for step in plan(ON_CGROUP, FOUND)] == ["attach_link", "record"]
    there = FOUND._replace(attached=(linked(NEW),), pinned=pinned(NEW), removable=("/cg/x",))
    there = there._replace(record=attachment.record(ON_CGROUP, there))
    assert plan(ON_CGROUP, there) == []
    steps = plan(ON_CGROUP._replace(present=False), there)
    assert [step.verb for step in steps] == ["detach_link", "record", "remove_cgroup"]


@pytest.mark.parametrize("lost", ["program_id", "cgroup_id", "link_id", "method"])
def test_a_record_that_differs_is_written_again(lost):
    there = FOUND._replace(attached=(linked(NEW),), pinned=pinned(NEW))
    entry = {**attachment.record(ON_CGROUP, there), lost: None}
    assert [step.verb for step in plan(ON_CGROUP, there._replace(record=entry))] == ["record"]


@pytest.mark.parametrize(
    ("wanted", "hook"),
    [(ON_CGROUP, hooks.SOCK_OPS), (ON_MAP, hooks.SK_MSG), (RECEIVE, hooks.SK_SKB), (ON_NETNS, hooks.SK_LOOKUP)],
)
def test_the_record_says_at_which_hook(wanted, hook):
    entry = attachment.record(wanted, FOUND._replace(hook=hook))
    assert entry["attach_type"] == hook.name
    assert set(entry) == set(attachment.RECORD_KEYS)
    assert hooks.recorded(entry) == hook


@pytest.mark.parametrize(
    ("entry", "hook"),
    [
        ({"cgroup": "/cg/x", "map": None}, hooks.SOCK_OPS),
        ({"cgroup": None, "map": "/b/peers"}, hooks.SK_MSG),
        ({"cgroup": None, "map": "/b/peers", "attach_type": None}, hooks.SK_MSG),
        ({"cgroup": None, "map": "/b/peers", "attach_type": "sk_skb_stream_verdict"}, hooks.SK_SKB),
    ],
)
def test_a_manifest_of_version_1_0_says_no_hook(entry, hook):
    assert hooks.recorded({"program": "/b/p", **entry}) == hook


def test_a_hook_of_a_later_version_is_refused():
    with pytest.raises(SockredirError, match="/b/p has the attach type xdp, which this version does not know"):
        hooks.recorded({"program": "/b/p", "cgroup": None, "attach_type": "xdp"})
    with pytest.raises(SockredirError, match="/b/p is attached to what this version does not know"):
        hooks.target({"program": "/b/p", "cgroup": None, "device": "eth0"})


def test_the_links_pin_depends_on_the_program_and_the_target():
    pins = {
        wanted.link_pin
        for wanted in (
            ON_CGROUP,
            ON_CGROUP._replace(target="/cg/y"),
            ON_CGROUP._replace(program="/b/other"),
            ON_CGROUP._replace(program="/c/sockops"),
            ON_MAP,
            RECEIVE,
        )
    }
    assert len(pins) == 6
    assert ON_CGROUP.link_pin.startswith("/b/link_sockops_")
    assert "." not in ON_CGROUP.link_pin, "bpffs takes no dots"


def test_every_verb_has_a_handler():
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.change import handlers

    planned = {"create_cgroup", "start_slice", "remove_cgroup", "unpin_link", "record"}
    planned |= {f"{what}_{how}" for what in ("attach", "replace", "detach") for how in ("link", "legacy")}
    assert set(handlers(ON_CGROUP, "/nowhere")) == planned
