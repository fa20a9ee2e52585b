# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run killed before or after any step: the next one ends where it would have, and nothing is left over."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import change as attachment
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted

_KILLED = 77


def killed_at(wanted: Wanted, state_dir: str, moment: int) -> bool:
    """Run in a child that ends at once at the given moment; whether it came to that."""
    child = os.fork()
    if child == 0:
        seen = 0

        def watch(_when, _step):
            nonlocal seen
            if seen == moment:
                os._exit(_KILLED)
            seen += 1

        try:
            attachment.ensure(wanted, state_dir, watch)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _KILLED


def fresh(bench):
    bench.program("cgroup")
    return {"target": f"{bench.cgroup}/a/b", "create_cgroup": True}


def replaced(bench):
    fresh(bench)
    attach(bench, create_cgroup=True)
    bench.program("cgroup")
    return {}


def to_legacy(bench):
    fresh(bench)
    attach(bench, create_cgroup=True)
    return {"method": "legacy"}


def to_link(bench):
    fresh(bench)
    attach(bench, create_cgroup=True, method="legacy")
    return {"method": "link"}


def taken_off(bench):
    fresh(bench)
    attach(bench, create_cgroup=True)
    return {"present": False}


def attach(bench, **options):
    given = {"target": f"{bench.cgroup}/a/b", **options}
    wanted = Wanted(bench.path("cgroup"), "cgroup", **given)
    return attachment.ensure(wanted, str(bench.sandbox.state_dir))


@pytest.mark.parametrize("scene", [fresh, replaced, to_legacy, to_link, taken_off], ids=lambda scene: scene.__name__)
def test_killed_at_any_step(bench, scene):
    target = f"{bench.cgroup}/a/b"
    moments = 0
    for moment in range(20):
        options = {"target": target, **scene(bench)}
        wanted = Wanted(bench.path("cgroup"), "cgroup", **options)
        if not killed_at(wanted, str(bench.sandbox.state_dir), moment):
            break
        moments += 1
        if os.path.isdir(target) and wanted.present and scene is not fresh:
            assert bench.on("cgroup", target), "there is always one attached"
        attachment.ensure(wanted, str(bench.sandbox.state_dir))
        again = attachment.ensure(wanted, str(bench.sandbox.state_dir))
        assert again.steps == [], moment
        if wanted.present:
            (found,) = bench.on("cgroup", target)
            assert found.program_id == again.record["program_id"]
            assert (found.method == "link") is os.path.exists(wanted.link_pin)
        attach(bench, present=False)
        assert not os.path.exists(f"{bench.cgroup}/a"), "what was made for it is known to be ours"
        assert [name for name in os.listdir(bench.sandbox.pin_dir) if name.startswith("link_")] == []
        assert bench.manifest()["cgroups"] == []
    assert moments >= 4
