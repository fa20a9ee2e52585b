# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps mount, make, pin and remove: a row for each thing that can be at a path."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.pin import apply as pin_apply
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.pin import change as pin
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.pin.plan import (
    Access,
    Observed,
    Place,
    Source,
    Wanted,
    plan,
)

ROOT = Access(0, 0, 0o700)
FILE = Access(0, 0, 0o600)
EMPTY = Place("directory", access=ROOT)
FULL = Place("directory", access=ROOT, entries=("peers", "sockops"))
A_MAP = Place("map", 7, FILE)
ON_EXT4 = {"fstype": "ext4", "mount_point": "/"}
ON_SYSFS = {"fstype": "sysfs", "mount_point": "/sys"}


def verbs(wanted, observed):
    return [step.verb for step in plan(wanted, observed)]


@pytest.mark.parametrize(
    ("access", "observed", "expected"),
    [
        (Access(), {"here": FULL}, []),
        (Access(mode=0o700), {"here": FULL}, []),
        (Access(mode=0o755), {"here": FULL}, ["access"]),
        # On a bpffs already, though not its root.
        (Access(mode=0o755), {"here": EMPTY, "mount_point": "/sys/fs"}, []),
        (Access(), {"here": None, "mount_point": "/sys/fs"}, []),
        (Access(), {"here": EMPTY, **ON_SYSFS}, ["mount"]),
        (Access(), {"missing": ("/sys/fs", "/sys/fs/bpf"), **ON_EXT4}, ["make_directory", "make_directory", "mount"]),
    ],
)
def test_mounted(access, observed, expected):
    assert verbs(Wanted("/sys/fs/bpf", "mounted", access=access), Observed(**observed)) == expected


@pytest.mark.parametrize(
    ("access", "check", "observed", "expected"),
    [
        (Access(), False, {"here": FULL}, []),
        (Access(gid=5), False, {"here": FULL}, ["access"]),
        (Access(), False, {"missing": ("/b/x",)}, ["make_directory"]),
        (Access(mode=0o700), False, {"missing": ("/b/x",)}, ["make_directory"]),
        (Access(mode=0o750), False, {"missing": ("/b", "/b/x")}, ["make_directory", "make_directory", "access"]),
        (Access(), True, {"missing": ("/b/x",), **ON_SYSFS}, ["make_directory"]),
    ],
)
def test_directory(access, check, observed, expected):
    assert verbs(Wanted("/b/x", "directory", access=access, check=check), Observed(**observed)) == expected


@pytest.mark.parametrize(
    ("change", "observed", "expected"),
    [
        ({}, {"source_kind": "map", "source_number": 7}, ["pin"]),
        ({}, {"source_kind": "map", "source_number": 7, "here": A_MAP}, []),
        ({}, {"source_kind": "map", "source_number": 8, "here": A_MAP}, ["pin"]),
        ({"kind": None}, {"source_kind": "program", "source_number": 7, "here": A_MAP}, ["pin"]),
        ({"access": Access(mode=0o640)}, {"source_kind": "map", "source_number": 7, "here": A_MAP}, ["access"]),
        ({"check": True}, {"missing": ("/b", "/b/x"), **ON_SYSFS}, ["pin"]),
    ],
)
def test_present(change, observed, expected):
    wanted = Wanted("/b/x", "present", "map", "/c/peers")._replace(**change)
    assert verbs(wanted, Observed(**observed)) == expected


def test_a_replaced_pin_keeps_its_access_where_nothing_else_is_said():
    shared = Place("map", 7, Access(5, 6, 0o640))
    observed = Observed(here=shared, source_kind="map", source_number=8)
    (step,) = plan(Wanted("/b/x", "present", "map", "8", Access(gid=9)), observed)
    assert step.need(Source).access == Access(5, 9, 0o640)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ({"here": None}, []),
        ({"here": None, **ON_EXT4}, []),
        ({"here": A_MAP}, ["unpin"]),
        ({"here": EMPTY}, ["remove_directory"]),
        ({"here": Place("symlink", access=FILE)}, ["unpin"]),
    ],
)
def test_absent(observed, expected):
    assert verbs(Wanted("/b/x", "absent"), Observed(**observed)) == expected


@pytest.mark.parametrize(
    ("wanted", "observed", "words"),
    [
        (("mounted",), {"mountable": False, **ON_SYSFS}, "this kernel has no bpffs"),
        (("mounted",), {"here": Place("file"), **ON_EXT4}, "is a file"),
        (("mounted",), {"here": FULL, **ON_EXT4}, "would hide 2 entries, such as peers"),
        (("directory",), {"missing": ("/b/x",), **ON_EXT4}, "is on ext4 (/), not on a bpffs; mount one first"),
        (("directory",), {"here": A_MAP}, "is a map, not a directory"),
        (("present", "map", "7"), ON_EXT4, "is on ext4 (/), not on a bpffs"),
        (("present", "map", "7"), {}, "source: there is no map 7"),
        (("present", "map", "7"), {"source_kind": "program", "source_number": 7}, "is a program, not a map"),
        (("present", None, "/c"), {"source_kind": "directory", "source_number": 0}, "is a directory, not a pin"),
        (("present", "map", "7"), {"source_kind": "map", "source_number": 7, "here": EMPTY}, "is a directory, not a"),
        (
            ("present", "map", "7"),
            {"source_kind": "map", "source_number": 7, "missing": ("/b", "/b/x")},
            "/b does not exist; create it first",
        ),
        (("absent",), {"here": FULL}, "holds peers, sockops; remove those first"),
        (("absent",), {"here": EMPTY, "mount_point": "/b/x"}, "the mount point of a bpffs"),
        (("absent",), {"here": Place("file"), **ON_EXT4}, "not on a bpffs"),
        (("absent",), {"here": Place("file")}, "the kernel itself keeps it there"),
        (("absent", "program"), {"here": A_MAP}, "is a pin of a map, not of a program"),
    ],
)
def test_what_is_refused(wanted, observed, words):
    with pytest.raises(SockredirError) as caught:
        plan(Wanted("/b/x", *wanted), Observed(**observed))
    assert words in str(caught.value)
    assert caught.value.cure


@pytest.mark.parametrize("state", ["directory", "present"])
def test_a_name_with_a_dot_is_refused(state):
    with pytest.raises(SockredirError, match="allows no dot in a name"):
        plan(Wanted("/b/x.y", state, "map", "7"), Observed(source_kind="map", source_number=7))


def test_the_diff_says_only_what_changes():
    (step,) = plan(Wanted("/b/x", "directory", access=Access(0, 5, 0o700)), Observed(here=FULL))
    assert (step.before, step.after) == ({"gid": 0}, {"gid": 5})


def test_every_verb_has_a_handler():
    assert set(pin_apply.handlers()) == {"mount", "make_directory", "remove_directory", "access", "pin", "unpin"}


@pytest.mark.parametrize(("mode", "number"), [("0700", 0o700), ("700", 0o700), (0o640, 0o640), (None, None)])
def test_modes(mode, number):
    assert pin.permissions(mode) == number


@pytest.mark.parametrize("mode", ["u=rwx", "", "999", True, -1, 0o10000, [7]])
def test_what_is_no_mode(mode):
    with pytest.raises(SockredirError, match="not a mode in octal"):
        pin.permissions(mode)


def test_users_and_groups_by_name_or_id():
    assert (pin.user_id("root"), pin.user_id("42"), pin.user_id(None)) == (0, 42, None)
    assert (pin.group_id("root"), pin.group_id("42"), pin.group_id(None)) == (0, 42, None)
    with pytest.raises(SockredirError, match="owner: no-such-user is unknown"):
        pin.user_id("no-such-user")
    with pytest.raises(SockredirError, match="group: no-such-group is unknown"):
        pin.group_id("no-such-group")
