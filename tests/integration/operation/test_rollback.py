# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolling back: check mode and the run show one plan, in which only what the kernel makes up is marked as unknown."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import UNKNOWN
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import states
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import change as attachment
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source
from support.connection import connection


def matches(foretold, done):
    """Whether a value of the run is what check mode said, or what it said to be unknown."""
    if foretold == UNKNOWN:
        return done is not None
    if isinstance(foretold, dict) and isinstance(done, dict):
        return foretold.keys() == done.keys() and all(matches(foretold[key], done[key]) for key in foretold)
    return foretold == done


def new_version(whole):
    whole.enable_here("v2")


def new_settings(whole):
    whole.enable_here("v1", mode="drain", ports=["80"])


def new_map(whole):
    """One that the old programs cannot use, so that theirs is created again."""
    pins, state_dir = str(whole.corner.pin_dir), str(whole.corner.state_dir)
    sizes = {"flows": 1024, "peers": 4096}
    source = str(whole.objects_of["v2"])
    program.present(program_source.Request("sockredir", pins, state_dir, source, max_entries=sizes, recreate=True))
    for name in whole.on_map("v2"):
        attachment.ensure(Wanted(f"{pins}/{name}", "map", f"{pins}/peers"), state_dir)
    attachment.ensure(Wanted(f"{pins}/sockops", "cgroup", str(whole.corner.cgroup)), state_dir)
    states.present(whole.here(), False)


def another_cgroup(whole):
    pins, state_dir = str(whole.corner.pin_dir), str(whole.corner.state_dir)
    inner = str(whole.corner.cgroup / "inner")
    attachment.ensure(Wanted(f"{pins}/sockops", "cgroup", inner, create_cgroup=True), state_dir)
    states.present({**whole.here(), "cgroup": inner}, False)


def lost_pins(whole):
    """A change, after which somebody has removed pins."""
    whole.enable_here("v2")
    for name in ("verdict", "counters"):
        (whole.corner.pin_dir / name).unlink()


@pytest.mark.parametrize("change", [new_version, new_settings, new_map, another_cgroup, lost_pins])
def test_check_mode_shows_the_plan_of_the_run(whole, change):
    whole.enable_here("v1")
    with connection(whole.corner.cgroup):
        change(whole)
        options = whole.here("rolled_back")
        foretold = states.rolled_back(options, True)
        assert foretold.steps
        said, before = states.show(foretold.steps), copy.deepcopy(whole.drift_here())
        assert states.show(states.rolled_back(options, True).steps) == said
        assert whole.drift_here() == before, "it has changed nothing"
        done = states.rolled_back(options, False)
        shown = states.show(done.steps)
        assert [(each["kind"], each["subject"]) for each in said] == [(each["kind"], each["subject"]) for each in shown]
        for foreseen, seen in zip(said, shown):
            for side in ("before", "after"):
                assert matches(foreseen[side], seen[side]), (foreseen, seen)
        assert foretold.result["settings"] == done.result["settings"]
    assert whole.drift_here() == []


def test_nothing_but_ids_is_unknown(whole):
    whole.enable_here("v1")
    whole.enable_here("v2")
    said = states.show(states.rolled_back(whole.here("rolled_back"), True).steps)
    replaced = [each for each in said if each["kind"] == "program_replaced"]
    assert replaced
    assert all(each["after"]["program_id"] == UNKNOWN for each in replaced)
    assert all(each["before"]["program_id"] > 0 for each in replaced)
    assert not any(each["after"] == UNKNOWN for each in said)
