# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several programs on one map, each at its hook."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest


@pytest.mark.parametrize("method", ["auto", "link"])
def test_a_map_has_several_programs_each_at_its_hook(bench, method):
    if method == "link" and not attachments.has_links(hooks.SK_SKB):
        pytest.skip("this kernel has no links to maps")
    bench.map()
    peers = bench.path("peers")
    programs = {name: bench.program(name) for name in ("map", "receive")}
    done = {}
    for name in programs:
        done[name] = bench.four_times(map=peers, program=bench.path(name), method=method)["attachment"]
    expected = {"map": "sk_msg_verdict", "receive": "sk_skb_stream_verdict"}
    assert {name: one["attach_type"] for name, one in done.items()} == expected
    for name, number in programs.items():
        assert [each.program_id for each in bench.on(name, peers)] == [number]
    pins = {one["link_pin"] for one in done.values()}
    assert pins == {None} if method == "auto" else len(pins) == 2
    assert len(bench.manifest()["attachments"]) == 2

    new = bench.program("receive")
    bench.four_times(map=peers, program=bench.path("receive"), method=method)
    assert [each.program_id for each in bench.on("receive", peers)] == [new]
    assert [each.program_id for each in bench.on("map", peers)] == [programs["map"]]

    bench.four_times(map=peers, program=bench.path("receive"), state="absent")
    assert bench.on("receive", peers) == []
    assert [each.program_id for each in bench.on("map", peers)] == [programs["map"]]


def test_a_manifest_of_version_1_0_is_read_as_it_is(bench):
    bench.program("map")
    bench.map()
    done = bench.attach(map=bench.path("peers"))["attachment"]

    def as_before(document):
        for entry in document["attachments"]:
            del entry["attach_type"]

    manifest.amend(str(bench.sandbox.state_dir), as_before)
    before = bench.state()
    again = bench.attach(map=bench.path("peers"))
    assert not again["changed"]
    assert again["attachment"] == done
    assert bench.state() == before
    bench.program("receive")
    done = bench.attach(map=bench.path("peers"), program=bench.path("receive"))
    assert done["changed"], done
    bench.four_times(map=bench.path("peers"), state="absent")
    (left,) = bench.manifest()["attachments"]
    assert left["program"] == bench.path("receive")


def test_another_type_of_program_in_the_pin_is_refused(bench):
    """What is attached is at another hook, and would stay there."""
    bench.program("map")
    bench.map()
    peers = bench.path("peers")
    bench.attach(map=peers)
    os.replace(bench.path("map"), bench.path("old"))
    bench.program("receive")
    os.replace(bench.path("receive"), bench.path("map"))
    failed = bench.attach(map=peers)
    assert failed["failed"]
    assert "is of type sk_skb, but what the manifest has at" in failed["msg"]
    bench.four_times(map=peers, state="absent")
    assert bench.on("map", peers) == []
    bench.four_times(map=peers)
    assert len(bench.on("receive", peers)) == 1


@pytest.mark.parametrize("hook", hooks.SOCK_ADDR, ids=lambda hook: hook.name)
def test_the_kernel_is_asked_what_a_program_was_loaded_for(bench, hook):
    """Programs of one type for several hooks: nothing but an attempt tells them apart."""
    with libbpf.load_program(hook.program_type, "any", bench.return_one, hook.attach_type) as program:
        assert attachments.hook_of(program) == hook
