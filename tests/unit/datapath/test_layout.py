# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data path's maps: what Python makes of their bytes, and that the C header agrees."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout, reasons
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.layout import Count, Flow, Key, LayoutError
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.reasons import Reason
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.settings_value import Mode
from support import header

HEADER = Path(__file__).resolve().parents[3] / "bpf" / "sockredir.h"

STRUCTS = {
    "key": (layout.KEY, "netns local remote local_port remote_port zero"),
    "count": (layout.COUNT, "events bytes"),
    "port": (layout.PORT, "connections brief demoted messages bytes left_alone worth zero"),
    "side": (
        layout.SIDE,
        "cookie sk unread charge messages edge bytes state way_back vain run heard flags queued widened zero",
    ),
    "pressure": (layout.PRESSURE, "used recount_at"),
    "event": (
        layout.EVENT,
        "time cpu pid comm op family local remote local_port remote_port zero",
    ),
    "ports": (layout.PORTS, "low high"),
    "cidr": (layout.CIDR, "addr bits"),
}


def offsets(packed: struct.Struct) -> list:
    """Offsets of the members of a format, and its size at the end."""
    codes = re.findall(r"\d*s|[A-Zq]", packed.format)
    return [struct.calcsize("=" + "".join(codes[:i])) for i in range(len(codes) + 1)]


def expected() -> dict:
    values = {}
    for name, (packed, members) in STRUCTS.items():
        places = offsets(packed)
        for member, place in zip(members.split(), places):
            values[f"{name}.{member}"] = place
        values[name] = places[-1]
    head = offsets(layout.SETTINGS_HEAD)
    names = (
        "version size mode flags budget trace_until demote_below demote_after generation n_include n_exclude n_cidrs"
        " leave_after zero"
    )
    values.update({f"settings.{member}": place for member, place in zip(names.split(), head)})
    values["settings.include"] = head[-1]
    values["settings.exclude"] = head[-1] + layout.MAX_PORTS * layout.PORTS.size
    values["settings.cidrs"] = values["settings.exclude"] + layout.MAX_PORTS * layout.PORTS.size
    values["settings"] = layout.SETTINGS_SIZE
    values["flow.owners"] = 0
    values["flow.opened"] = 8
    values["flow.side"] = layout.FLOW_HEAD.size
    values["flow"] = layout.FLOW_SIZE
    values.update({f"SOCKREDIR_{reason.name}": reason.value for reason in Reason})
    values.update({f"SOCKREDIR_MODE_{mode.name}": mode.value for mode in Mode})
    values.update(
        SOCKREDIR_LAYOUT=layout.LAYOUT,
        SOCKREDIR_REASONS=layout.REASONS_SIZE,
        SOCKREDIR_MAX_PORTS=layout.MAX_PORTS,
        SOCKREDIR_MAX_CIDRS=layout.MAX_CIDRS,
        SOCKREDIR_CROSS_NETNS=layout.CROSS_NETNS,
        SOCKREDIR_SIDE_SERVER=layout.SIDE_SERVER,
        SOCKREDIR_SIDE_SEGMENT_CB=layout.SIDE_SEGMENT_CB,
        SOCKREDIR_SIDE_STARTED=layout.SIDE_STARTED,
        SOCKREDIR_SIDE_BARRED=layout.SIDE_BARRED,
        SOCKREDIR_SIDE_LEFT=layout.SIDE_LEFT,
    )
    return values


def c_expression(name: str) -> str:
    if name.startswith("SOCKREDIR_"):
        return name
    struct_name, _dot, member = name.partition(".")
    if member:
        return f"offsetof(struct sockredir_{struct_name}, {member})"
    return f"sizeof(struct sockredir_{struct_name})"


def test_python_and_header_agree(tmp_path):
    wanted = expected()
    assert header.values(HEADER, {name: c_expression(name) for name in wanted}, tmp_path) == wanted


def test_every_reason_of_the_header_has_a_name_and_a_description():
    body = re.search(r"enum sockredir_reason \{(.*?)\};", HEADER.read_text(), re.S).group(1)
    names = re.findall(r"^\s*SOCKREDIR_(\w+)[,\s]", re.sub(r"/\*.*?\*/", "", body, flags=re.S), re.M)
    assert [name for name in names if name != "REASONS"] == [reason.name for reason in Reason]
    assert set(reasons.DESCRIPTIONS) == set(Reason)


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("127.0.0.1", bytes(10) + b"\xff\xff\x7f\x00\x00\x01"),
        ("::1", bytes(15) + b"\x01"),
        ("fd00::2", b"\xfd" + bytes(14) + b"\x02"),
    ],
)
def test_addresses(text, raw):
    assert layout.encode_address(text) == raw
    assert layout.decode_address(raw) == text


def test_a_mapped_address_is_shown_as_the_ipv4_it_is():
    assert layout.decode_address(layout.encode_address("::ffff:10.0.0.1")) == "10.0.0.1"


def test_keys():
    key = Key(7, "127.0.0.1", 40000, "127.0.0.2", 80)
    raw = layout.encode_key(key)
    assert layout.decode_key(raw) == key
    assert layout.decode_key(layout.encode_key(key.reverse)).local_port == 80
    assert len(raw) == 48


@pytest.mark.parametrize(
    "key",
    [
        Key(0, "127.0.0.1", 65536, "127.0.0.1", 1),
        Key(0, "127.0.0.1", -1, "127.0.0.1", 1),
        Key(-1, "::", 1, "::", 1),
        Key(0, "localhost", 1, "::", 1),
    ],
)
def test_impossible_keys(key):
    with pytest.raises(LayoutError):
        layout.encode_key(key)


def test_flow_record():
    client = layout.SIDE.pack(11, 0xFFFF888800000000, 5, 4096, 3, 0, 300, Reason.REDIRECTED, 1, 0, 2, 0, 0, 0, 1, b"")
    server = layout.SIDE.pack(12, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0, layout.SIDE_SERVER | layout.SIDE_LEFT, 0, 0, b"")
    flow = layout.decode_flow(layout.FLOW_HEAD.pack(11 << 2 | 3, 123) + client + server)
    assert isinstance(flow, Flow)
    assert flow.opened == 123
    first, second = flow.sides
    assert (first.cookie, first.state, first.messages, first.bytes, first.charge) == (11, "redirected", 3, 300, 4096)
    assert not first.server
    assert not first.left
    assert second.server
    assert second.left
    assert second.state == "reason_99"


def test_per_cpu_counters_are_summed():
    assert layout.sum_counter(layout.COUNT.pack(1, 10) + layout.COUNT.pack(2, 20)) == Count(3, 30)
    for raw in (b"", bytes(17)):
        with pytest.raises(LayoutError):
            layout.sum_counter(raw)


def test_counters_have_names():
    counts = [Count(i, 0) for i in range(layout.REASONS_SIZE)]
    named = layout.name_counters(counts)
    assert named["redirected"].events == Reason.REDIRECTED
    assert "undecided" not in named
    assert len(named) == len(Reason) - 1
    assert layout.flows_now(named) == Reason.FLOW_OPENED - Reason.FLOW_CLOSED


def event(comm: bytes = b"iperf3", family: int = 4, local: str = "127.0.0.1", remote: str = "127.0.0.1") -> bytes:
    return layout.EVENT.pack(
        22500634108999,
        1,
        9516,
        comm,
        4,
        family,
        layout.encode_address(local),
        layout.encode_address(remote),
        18583,
        4135,
        0,
    )


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (event(), "iperf3-9516 [001] 22500.634108: ipv4 op=4 127.0.0.1:18583 --> 127.0.0.1:4135"),
        (
            event(family=6, local="::1", remote="::1"),
            "iperf3-9516 [001] 22500.634108: ipv6 op=4 [::1]:18583 --> [::1]:4135",
        ),
        (event(comm=b"a\nb\xff"), "a?b\ufffd-9516 [001] 22500.634108: ipv4 op=4 127.0.0.1:18583 --> 127.0.0.1:4135"),
    ],
)
def test_event_lines(raw, line):
    assert layout.format_event(layout.decode_event(raw)) == line
