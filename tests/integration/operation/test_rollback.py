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


def new_version(managed):
    managed.enable_here("v2")


def new_settings(managed):
    managed.enable_here("v1", mode="drain", ports=["80"])


def new_map(managed):
    """One that the old programs cannot use, so that theirs is created again."""
    pins, state_dir = str(managed.sandbox.pin_dir), str(managed.sandbox.state_dir)
    sizes = {"flows": 1024, "peers": 4096}
    source = str(managed.objects_of["v2"])
    program.present(program_source.Options("sockredir", pins, state_dir, source, max_entries=sizes, recreate=True))
    for name in managed.on_map("v2"):
        attachment.ensure(Wanted(f"{pins}/{name}", "map", f"{pins}/peers"), state_dir)
    attachment.ensure(Wanted(f"{pins}/sockops", "cgroup", str(managed.sandbox.cgroup)), state_dir)
    states.present(managed.here(), False)


def another_cgroup(managed):
    pins, state_dir = str(managed.sandbox.pin_dir), str(managed.sandbox.state_dir)
    inner = str(managed.sandbox.cgroup / "inner")
    attachment.ensure(Wanted(f"{pins}/sockops", "cgroup", inner, create_cgroup=True), state_dir)
    states.present({**managed.here(), "cgroup": inner}, False)


def lost_pins(managed):
    """A change, after which somebody has removed pins."""
    managed.enable_here("v2")
    for name in ("verdict", "counters"):
        (managed.sandbox.pin_dir / name).unlink()


@pytest.mark.parametrize("change", [new_version, new_settings, new_map, another_cgroup, lost_pins])
def test_check_mode_shows_the_plan_of_the_run(managed, change):
    managed.enable_here("v1")
    with connection(managed.sandbox.cgroup):
        change(managed)
        options = managed.here("rolled_back")
        foretold = states.rolled_back(options, True)
        assert foretold.steps
        said, before = states.show(foretold.steps), copy.deepcopy(managed.drift_here())
        assert states.show(states.rolled_back(options, True).steps) == said
        assert managed.drift_here() == before, "it has changed nothing"
        done = states.rolled_back(options, False)
        shown = states.show(done.steps)
        assert [(each["kind"], each["subject"]) for each in said] == [(each["kind"], each["subject"]) for each in shown]
        for foreseen, seen in zip(said, shown):
            for side in ("before", "after"):
                assert matches(foreseen[side], seen[side]), (foreseen, seen)
        assert foretold.result["settings"] == done.result["settings"]
    assert managed.drift_here() == []


def test_nothing_but_ids_is_unknown(managed):
    managed.enable_here("v1")
    managed.enable_here("v2")
    said = states.show(states.rolled_back(managed.here("rolled_back"), True).steps)
    replaced = [each for each in said if each["kind"] == "program_replaced"]
    assert replaced
    assert all(each["after"]["program_id"] == UNKNOWN for each in replaced)
    assert all(each["before"]["program_id"] > 0 for each in replaced)
    assert not any(each["after"] == UNKNOWN for each in said)
