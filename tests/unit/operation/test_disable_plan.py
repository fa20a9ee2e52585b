# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken off a host, and what is left because it is somebody else's."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import Step
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.settings import Found
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.settings_value import Mode, Settings
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import install, systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.files import File, symlink
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import disable_plan
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Change


@pytest.mark.parametrize(
    ("found", "drains"),
    [
        (None, False),
        (Found(b"", None, "settings: never written"), False),
        (Found(b"", Settings(mode=Mode.DRAIN), ""), False),
        (Found(b"", Settings(mode=Mode.ENFORCE), ""), True),
        (Found(b"", Settings(mode=Mode.OBSERVE), ""), True),
    ],
)
def test_drain(found, drains):
    steps = disable_plan.drain(found)
    assert bool(steps) == drains
    assert all(step.need(disable_plan.NewSettings).settings["mode"] == "drain" for step in steps)


UNIT = systemd.unit_files("/u", "/p/sbin/sockredirctl", "/s", None)
OURS = {"/p/sbin/sockredirctl": install.launcher(install.Places("/p"), "/s"), **UNIT}
OURS[systemd.drop_in_path("/u", "a.service")] = systemd.drop_in("my.slice")


def test_all_of_ours_go_and_the_unit_is_disabled_first():
    steps = disable_plan.remove_files({**OURS, "/u/none": None}, [])
    assert {step.subject for step in steps} == set(OURS)
    assert steps[0].subject == systemd.wants_link("/u")


def test_files_of_others_at_our_places_stay():
    others = {"/p/sbin/sockredirctl": File("#!/bin/sh\n"), "/u/sockredir.service": symlink("/dev/null")}
    assert disable_plan.remove_files(others, []) == []


def test_what_the_manifest_names_goes_whatever_it_says_now():
    changed = {"/p/sbin/sockredirctl": File("#!/bin/sh\n")}
    assert [step.subject for step in disable_plan.remove_files(changed, changed)] == list(changed)


UNPINS = [Step("unpin", "/b/a", "x", None), Step("detach_link", "/cg", "x", None, Change(7, 8, 9, "/b/link"))]


@pytest.mark.parametrize(
    ("names", "steps", "goes"),
    [
        (["/b/a", "/b/link"], UNPINS, True),
        (["/b/a", "/b/link", "/b/foreign"], UNPINS, False),
        ([], [], True),
        (["/b/a", "/b/link"], [*UNPINS, Step("remove_directory", "/b", "directory", None)], False),
    ],
)
def test_the_pins_directory(names, steps, goes):
    assert bool(disable_plan.remove_directory("/b", names, steps)) == goes
