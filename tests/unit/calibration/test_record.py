# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the manifest says of a calibration: when it holds, and in which words."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration import decision, record
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration.decision import Measured, Turn
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError

KEY = {"kernel": "6.1.0", "cpu": "EPYC", "object_sha256": "ab" * 32}
FAST = Measured(
    {size: [Turn(1e9, 2e9)] * 5 for size in decision.SIZES},
    {"plain": 20.0, "redirected": 10.0},
    {"plain": 12.0, "redirected": 9.0},
)


def document(below=65536, **changes):
    section = {"source": "measured", **KEY, "stream_from": 65536, **changes}
    return {"settings": {"demote_below": below}, "calibration": section}


@pytest.mark.parametrize(
    ("host", "known"),
    [
        (document(), 65536),
        (document(source="default", problem="no room"), 65536),
        (document(source="given"), None),
        (document(kernel="6.2.0"), None),
        (document(cpu="Xeon"), None),
        (document(object_sha256="cd" * 32), None),
        (document(below="text"), None),
        ({"settings": {"demote_below": 30000}}, None),
        ({"settings": {}, "calibration": None}, None),
        (None, None),
    ],
)
def test_what_an_earlier_run_has_found_out(host, known):
    found = record.known(host, KEY)
    assert (found.below if found else None) == known


def test_what_is_measured_is_kept_with_what_it_holds_for():
    found = record.found(lambda: FAST, KEY)
    assert found.below == 4096
    assert {**KEY, "source": "measured", "stream_from": 4096}.items() <= found.record.items()
    assert found.record["request_us"] == {"plain": 20.0, "redirected": 10.0}
    assert found.record["many_us"] == {"plain": 12.0, "redirected": 9.0}
    assert (found.record["ratios"]["65536"], found.record["plain_us"]["65536"]) == (2.0, 65.54)
    assert record.known({"settings": {"demote_below": found.below}, "calibration": found.record}, KEY) == found
    assert record.warning(found.record) is None


def test_a_failure_is_the_default_and_a_warning():
    def fail():
        raise SockredirError("no room for a map", "make room")

    found = record.found(fail, KEY)
    assert found.below == settings_value.DEFAULT_DEMOTE_BELOW
    assert found.record == {"source": "default", **KEY, "problem": "no room for a map"}
    assert "no room for a map" in record.warning(found.record)


def test_what_the_operator_gives_needs_no_warning():
    found = record.given(0)
    assert (found.below, record.warning(found.record)) == (0, None)


HERE = {"source": "measured", "kernel": record.valid_for(None)["kernel"]}


@pytest.mark.parametrize(
    ("below", "section", "said"),
    [
        (65536, HERE, "one-way streams: redirected from 64 KiB per message up, by TCP below (measured on this host)"),
        (decision.NEVER, HERE, "one-way streams: by TCP (measured on this host)"),
        (0, {"source": "given"}, "one-way streams: redirected at every size (as given)"),
        (
            30000,
            {"source": "default", "problem": "no room"},
            "one-way streams: redirected from 30000 bytes per message up, by TCP below (the default: no room)",
        ),
        (
            1 << 20,
            {"source": "measured", "kernel": "0.1"},
            "one-way streams: redirected from 1 MiB per message up, by TCP below (measured on kernel 0.1)",
        ),
        (
            30000,
            {},
            "one-way streams: redirected from 30000 bytes per message up, by TCP below (by an earlier version)",
        ),
        (None, {}, "one-way streams: unknown"),
    ],
)
def test_words(below, section, said):
    assert record.words(below, section) == said


def test_this_host_has_a_kernel_and_a_cpu():
    key = record.valid_for("ab")
    assert key["kernel"]
    assert key["cpu"]
    assert key["object_sha256"] == "ab"


def test_the_programs_that_redirect():
    ours, other = {"pins": {"sockops": "/p/sockops"}}, {"pins": {"meter": "/p/meter"}}
    assert record.program({"programs": {"x": other, "sockredir": ours}}) == ours
    assert record.program({"programs": {"x": other}}) == record.program(None) == {}
