# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a trace shows of the records of interception."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept_record, layout
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End, Event

NONE, CLIENT, PROXY, ASKED = End("::", 0), End("127.0.0.1", 40000), End("127.0.0.1", 15001), End("203.0.113.7", 80)
MOMENT = "curl-9516 [001] 22500.634108: "


def record(event: int, *ends: End, slot: int = 1, comm: bytes = b"curl") -> bytes:
    words = [word for end in ends for word in (layout.encode_address(end.address), end.port, 0)]
    return intercept_record.RECORD.pack(22500634108999, 1, 9516, comm, slot, event, *words, 0)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            record(Event.CLAIMED, CLIENT, PROXY, ASKED),
            "claimed rule=web 127.0.0.1:40000 --> 127.0.0.1:15001 asked=203.0.113.7:80",
        ),
        (record(Event.DIRECT, NONE, ASKED, ASKED), "direct rule=web * --> 203.0.113.7:80"),
        (record(Event.PASSED, NONE, ASKED, ASKED, slot=0), "passed rule=- * --> 203.0.113.7:80"),
        (record(Event.LOOPED, NONE, PROXY, PROXY, slot=7), "looped rule=#7 * --> 127.0.0.1:15001"),
        (
            record(Event.UNCLAIMED, End("2001:db8::2", 1), End("::1", 15001), End("::1", 15001)),
            "unclaimed rule=web [2001:db8::2]:1 --> [::1]:15001",
        ),
        (record(200, NONE, ASKED, ASKED), "event200 rule=web * --> 203.0.113.7:80"),
    ],
)
def test_lines(raw, line):
    assert intercept_record.line(intercept_record.decode(raw + b"padding"), {1: "web"}) == MOMENT + line


def test_a_name_that_cannot_be_shown():
    found = intercept_record.decode(record(Event.PASSED, NONE, ASKED, ASKED, comm=b"a\nb\0rest"))
    assert intercept_record.line(found, {}).startswith("a?b-9516 [001] ")


def test_a_record_that_is_too_short():
    with pytest.raises(layout.LayoutError, match="an event of interception has 103 bytes, this version 104"):
        intercept_record.decode(record(Event.PASSED, NONE, ASKED, ASKED)[:-1])
