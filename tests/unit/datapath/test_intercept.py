# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maps of interception: what Python makes of their bytes, and that the C header agrees."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import (
    intercept,
    intercept_doors,
    intercept_record,
    layout,
)
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End, Event, Rule
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.layout import LayoutError
from support import header

HEADER = Path(__file__).resolve().parents[3] / "bpf" / "intercept.h"
HEAD = [
    *("apps", "proxy", "apps_level", "proxy_level", "proxy_user", "flags", "slot"),
    *("n_ports", "n_exclude_ports", "n_cidrs", "n_exclude_cidrs", "zero"),
]
FLAGS = ("VALID", "PROXY_USER", "DIRECT_WHEN_DOWN", "SOCKNAME")
LIMITS = ("MAX_RULES", "MAX_PORTS", "MAX_CIDRS", "MAX_DNS")


def expected() -> dict:
    values = {"end": intercept.END.size, "end.port": 16, "rule": intercept.RULE_SIZE, "state": intercept.STATE.size}
    codes = re.findall("[A-Z]", intercept.RULE_HEAD.format)
    for place, member in enumerate(HEAD):
        values[f"rule.{member}"] = struct.calcsize("=" + "".join(codes[:place]))
    at = intercept.RULE_HEAD.size
    sizes = {
        "to": 2 * intercept.END.size,
        "dns": 2 * intercept.MAX_DNS * intercept.END.size,
        "ports": intercept.MAX_PORTS * layout.PORTS.size,
        "exclude_ports": intercept.MAX_PORTS * layout.PORTS.size,
        "cidrs": intercept.MAX_CIDRS * layout.CIDR.size,
        "exclude_cidrs": intercept.MAX_CIDRS * layout.CIDR.size,
    }
    for member, size in sizes.items():
        values[f"rule.{member}"] = at
        at += size
    values.update(
        {
            "port": intercept_doors.KEY.size,
            "door": intercept_doors.SIZE,
            "door.to": 8,
            "door.slot": intercept_doors.SIZE - 8,
            "listener": intercept_doors.LISTENER_SIZE,
            "listener.index": intercept_doors.LISTENER_SIZE - 4,
            "MAX_DOORS": intercept_doors.MAX_DOORS,
            "LISTENERS": intercept_doors.LISTENERS,
            "record": intercept_record.RECORD.size,
            "record.comm": 16,
            "record.slot": 32,
            "record.event": 36,
            "record.client": 40,
            "record.to": 40 + intercept.END.size,
            "record.asked": 40 + 2 * intercept.END.size,
            "TRACE_UNTIL": intercept_record.UNTIL,
            "TRACE_LOST": intercept_record.LOST,
        }
    )
    values.update({"state.half": 4, "EVENTS": intercept.EVENTS_SIZE, "LAYOUT": intercept.LAYOUT})
    for name in (
        "MAX_RULES",
        "MAX_PORTS",
        "MAX_CIDRS",
        "MAX_DNS",
        "VALID",
        "PROXY_USER",
        "DIRECT_WHEN_DOWN",
        "SOCKNAME",
        "HAS_INBOUND",
    ):
        values[name] = getattr(intercept, name)
    return {**values, **{event.name: event.value for event in Event}}


def c_expression(name: str) -> str:
    if name.isupper():
        return f"INTERCEPT_{name}"
    of, _dot, member = name.partition(".")
    return f"offsetof(struct intercept_{of}, {member})" if member else f"sizeof(struct intercept_{of})"


def test_python_and_header_agree(tmp_path):
    wanted = expected()
    assert header.values(HEADER, {name: c_expression(name) for name in wanted}, tmp_path) == wanted


def test_every_event_of_the_header_has_a_name_and_a_description():
    body = re.search(r"enum intercept_event \{(.*?)\};", HEADER.read_text(), re.S).group(1)
    names = re.findall(r"^\s*INTERCEPT_(\w+)[,\s]", re.sub(r"/\*.*?\*/", "", body, flags=re.S), re.M)
    assert [name for name in names if name != "EVENTS"] == [event.name for event in Event]
    assert set(intercept.DESCRIPTIONS) == set(Event)


FULL = Rule(
    apps=11,
    apps_level=2,
    to=(End("127.0.0.1", 15001), End("::1", 15002)),
    slot=3,
    proxy=12,
    proxy_level=3,
    proxy_user=0,
    ports=((80, 80), (8000, 8999)),
    exclude_ports=((8080, 8080),),
    cidrs=("10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "::/0"),
    exclude_cidrs=("10.1.0.0/16",),
    dns=(End("127.0.0.1", 5353), End("127.0.0.2", 5353), End("::1", 5353)),
    direct_when_down=True,
    sockname=True,
)


@pytest.mark.parametrize("rule", [FULL, Rule(1, 0, (End("::1", 1),), 1), Rule(1, 0, (), 32, proxy_user=1000)])
def test_rules_survive_the_map(rule):
    raw = intercept.encode_rule(rule)
    assert len(raw) == intercept.RULE_SIZE
    assert intercept.decode_rule(raw) == rule


def test_ports_of_connections_from_outside_survive_their_map():
    rules = [
        Rule(1, 0, (End("127.0.0.1", 1),), 4, inbound=((80, 80), (8000, 8002)), netns=77),
        Rule(1, 0, (End("::1", 2),), 2),
        Rule(1, 0, (End("::1", 3),), 9, inbound=((81, 81),), netns=78, direct_when_down=True),
    ]
    doors = intercept_doors.encode(rules)
    assert sorted(doors) == [80, 81, 8000, 8001, 8002]
    assert {len(value) for value in doors.values()} == {intercept_doors.SIZE}
    told = [rule._replace(inbound=(), netns=0) for rule in rules]
    assert intercept_doors.apply(told, doors) == rules


def test_a_listener_has_places_of_its_own():
    keys = [key for address in ("127.0.0.1", "::1") for key in intercept_doors.listener_keys(7, End(address, 15001))]
    assert len(set(keys)) == 2 * intercept_doors.LISTENERS
    assert {len(key) for key in keys} == {intercept_doors.LISTENER_SIZE}


def test_an_empty_element_is_no_rule():
    assert intercept.decode_rule(bytes(intercept.RULE_SIZE)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"to": (End("127.0.0.1", 0),)}, "is not a port"),
        ({"to": (End("127.0.0.1", 1), End("127.0.0.2", 1))}, "to: 2 addresses of IPv4"),
        ({"dns": (End("127.0.0.1", 1),) * 4}, "udp_dns: 4 addresses"),
        ({"ports": ((1, 1),) * 33}, "ports: 33 ranges"),
        ({"exclude_cidrs": ("10.0.0.0/8",) * 33}, "exclude_cidrs: 33 networks, at most 32"),
        ({"slot": 33}, "slot"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(LayoutError, match=said):
        intercept.encode_rule(FULL._replace(**change))


def test_nonsense_in_the_map_is_named():
    raw = bytearray(intercept.encode_rule(FULL))
    with pytest.raises(LayoutError, match="bytes"):
        intercept.decode_rule(bytes(raw[:-1]))
    struct.pack_into("=I", raw, 36, 99)
    with pytest.raises(LayoutError, match="99 ranges of ports"):
        intercept.decode_rule(bytes(raw))


def test_counts_by_slot():
    found = intercept.counts(range(2 * intercept.EVENTS_SIZE))
    assert found[1]["rewritten"] == intercept.EVENTS_SIZE
    assert found[0]["dns"] == Event.DNS
    assert set(found) == {0, 1}
