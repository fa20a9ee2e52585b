# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockmap_attach with several programs: all of them are attached in one change, or none is."""

from __future__ import annotations


def test_several_programs_in_one_change(bench):
    bench.map()
    numbers = [bench.program(kind) for kind in ("receive", "map")]
    pins = {"programs": [bench.path("receive"), bench.path("map")]}
    done = bench.four_times(map=bench.path("peers"), **pins)
    assert [each["program_id"] for each in done["attachments"]] == numbers
    assert [bench.on(kind, bench.path("peers"))[0].program_id for kind in ("receive", "map")] == numbers
    bench.four_times(map=bench.path("peers"), state="absent", **pins)
    assert bench.manifest()["attachments"] == []


def test_if_one_of_several_cannot_be_none_is(bench):
    bench.map()
    bench.program("receive")
    before = bench.state()
    pins = {"programs": [bench.path("receive"), bench.path("missing")]}
    failed = bench.attach(map=bench.path("peers"), **pins)
    assert failed["failed"]
    assert failed["msg"].startswith(f"program: nothing is pinned at {bench.path('missing')}")
    assert bench.on("receive", bench.path("peers")) == []
    assert bench.state()[:3] == before[:3]
    assert bench.manifest()["attachments"] == []
