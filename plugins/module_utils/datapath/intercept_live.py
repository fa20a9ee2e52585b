# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interception maps as they are now on this host, found by their pins."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
import time
from typing import Dict, Iterator, List, Optional, Sequence, Set

from ..errors import SockredirError
from ..kernel import libbpf
from . import intercept, intercept_doors, intercept_record
from .live import open_map

#: The map in which events are, while somebody wants them.
RING = "intercept_ring"
_TRACE = "intercept_trace"
_FIRST = struct.pack("=I", 0)
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_MEMBARRIER_GLOBAL = 1
_UNKNOWN_ARCHITECTURE_SECONDS = 0.2


def read_rules(pin_dir: str) -> Optional[List[intercept.Rule]]:
    """The rules that hold, in their order; None if there is no such map.

    :raises SockredirError: the maps are of another layout, or hold nonsense.
    """
    with contextlib.ExitStack() as stack:
        state, rules = (open_map(pin_dir, name) for name in ("intercept_state", "intercepts"))
        for found in (state, rules):
            if found is not None:
                stack.enter_context(found)
        if state is None or rules is None:
            return None
        half = _half(state.lookup(_FIRST))
        return [] if half is None else intercept_doors.apply(list(_rules(rules, half)), _doors(pin_dir, half))


def _half(raw: Optional[bytes]) -> Optional[int]:
    """Which half holds; None if none have been written."""
    if raw is None or len(raw) != intercept.STATE.size:
        raise SockredirError("intercept_state: the map is of another version", "load the programs again")
    version, half = intercept.STATE.unpack(raw)
    if version not in (0, intercept.LAYOUT):
        raise SockredirError(
            f"intercept_state: version {version}, this is {intercept.LAYOUT}", "load the programs again"
        )
    return half & 1 if version else None


def _rules(rules: libbpf.Map, half: int) -> Iterator[intercept.Rule]:
    for index in range(intercept.MAX_RULES):
        raw = rules.lookup(_key(half, index))
        rule = intercept.decode_rule(raw) if raw else None
        if rule is None:
            return
        yield rule


def _doors(pin_dir: str, half: int) -> Dict[int, bytes]:
    """Port -> value; programs of an earlier version have no such map."""
    found = open_map(pin_dir, "doors")
    if found is None:
        return {}
    with found as doors:
        found_there = {intercept_doors.KEY.unpack(key): value for key, value in doors.items()}
    return {port: value for (of_half, port), value in found_there.items() if of_half == half}


def _write_doors(pin_dir: str, half: int, wanted: Dict[int, bytes]) -> None:
    found = open_map(pin_dir, "doors")
    if found is None:
        if wanted:
            raise SockredirError(f"inbound: the programs in {pin_dir} do not know it", "load intercept.bpf.c again")
        return
    with found as doors:
        for port in set(_doors(pin_dir, half)) - set(wanted):
            doors.delete(intercept_doors.KEY.pack(half, port))
        for port, value in wanted.items():
            doors.update(intercept_doors.KEY.pack(half, port), value)


def _key(half: int, index: int) -> bytes:
    return struct.pack("=I", half * intercept.MAX_RULES + index)


def write_rules(pin_dir: str, wanted: Sequence[intercept.Rule]) -> None:
    """Have these rules hold from now on, all of them at once.

    The half that does not hold is written, then the halves change places. Before that, no program may be left that
    still reads the half which held before the last change. The caller holds the host's lock.

    :raises SockredirError: there are no such maps, or a rule cannot be expressed.
    """
    if len(wanted) > intercept.MAX_RULES:
        raise SockredirError(f"{len(wanted)} interception rules, at most {intercept.MAX_RULES}")
    values = [intercept.encode_rule(rule) for rule in wanted]
    values += [bytes(intercept.RULE_SIZE)] * (intercept.MAX_RULES - len(values))
    doors = intercept_doors.encode(wanted)
    with contextlib.ExitStack() as stack:
        state, rules = (open_map(pin_dir, name) for name in ("intercept_state", "intercepts"))
        if state is None or rules is None:
            raise SockredirError(f"interception rules cannot be written in {pin_dir}", "load intercept.bpf.c first")
        stack.enter_context(state)
        stack.enter_context(rules)
        half = 1 - (_half(state.lookup(_FIRST)) or 0)
        wait_for_programs()
        for index, value in enumerate(values):
            rules.update(_key(half, index), value)
        _write_doors(pin_dir, half, doors)
        state.update(_FIRST, intercept.STATE.pack(intercept.LAYOUT, half))


def wait_for_programs() -> None:
    """Wait until every program that runs now has ended: membarrier(2) waits for an RCU grace period."""
    number = _MEMBARRIER.get(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if number is None or libc.syscall(ctypes.c_long(number), ctypes.c_int(_MEMBARRIER_GLOBAL), ctypes.c_uint(0)):
        time.sleep(_UNKNOWN_ARCHITECTURE_SECONDS)  # a program runs for microseconds


def listed(pin_dir: str, netns: int, end: intercept.End) -> Set[int]:
    """Cookies of the listeners that the programs know at an address of a rule's ``to``.

    :param netns: cookie of the network namespace.
    """
    found = open_map(pin_dir, "listeners")
    if found is None:
        return set()
    with found as table:
        raw = [table.lookup(key) for key in intercept_doors.listener_keys(netns, end)]
    return {int.from_bytes(cookie, sys.byteorder) for cookie in raw if cookie}


def enlist(pin_dir: str, netns: int, end: intercept.End, listener: int) -> Optional[bytes]:
    """Have the programs know one more listener, by a descriptor of it.

    :returns: its key, for :func:`strike`; None if every place is taken: those that have one share the port with it.
    :raises SockredirError: the kernel does not take such a socket, or there is no such map.
    """
    with libbpf.Map.open_pin(os.path.join(pin_dir, "listeners")) as table:
        for key in intercept_doors.listener_keys(netns, end):
            try:
                table.update(key, struct.pack("=Q", listener), libbpf.MAP_NOEXIST)
                return key
            except libbpf.BpfError as error:
                if error.errno != errno.EEXIST:
                    raise
    return None


def strike(pin_dir: str, key: bytes) -> None:
    """Have the programs forget what :func:`enlist` told them."""
    with libbpf.Map.open_pin(os.path.join(pin_dir, "listeners")) as table:
        table.delete(key)


def counters(pin_dir: str) -> Optional[Dict[int, Dict[str, int]]]:
    """Slot of a rule (0: of none) -> event -> how often; None if there is no such map."""
    found = open_map(pin_dir, "intercepted")
    if found is None:
        return None
    with found as table:
        raw = [table.lookup(struct.pack("=I", index)) for index in range(table.info.max_entries)]
    return intercept.counts([sum(value for (value,) in intercept.COUNT.iter_unpack(one or b"")) for one in raw])


def reset_counters(pin_dir: str, slots: Sequence[int]) -> None:
    """Have the counters of rules begin at 0: their slots were another's before."""
    found = open_map(pin_dir, "intercepted") if slots else None
    if found is None:
        return
    with found as table:
        for slot in slots:
            for index in range(slot * intercept.EVENTS_SIZE, (slot + 1) * intercept.EVENTS_SIZE):
                key = struct.pack("=I", index)
                table.update(key, bytes(len(table.lookup(key) or b"")))


def ring_id(pin_dir: str) -> Optional[int]:
    """The id of the ring of events; None: there is none, as with programs of an earlier version."""
    found = open_map(pin_dir, RING)
    if found is None:
        return None
    with found as events:
        return events.info.id


def trace_until(pin_dir: str, moment: int) -> None:
    """Have events written to the ring, if there is one, until a moment; a later one already asked for stays.

    :param moment: int, CLOCK_MONOTONIC in nanoseconds; 0 stops it for everybody.
    """
    found = open_map(pin_dir, _TRACE)
    if found is None:
        return
    with found as trace:
        if moment == 0 or moment > _number(trace, intercept_record.UNTIL):
            trace.update(struct.pack("=I", intercept_record.UNTIL), struct.pack("=Q", moment))


def untold(pin_dir: str) -> int:
    """How many events have not found room in the ring since it was made."""
    found = open_map(pin_dir, _TRACE)
    if found is None:
        return 0
    with found as trace:
        return _number(trace, intercept_record.LOST)


def _number(trace: libbpf.Map, element: int) -> int:
    raw = trace.lookup(struct.pack("=I", element))
    return int.from_bytes(raw or b"", sys.byteorder)


def pending(pin_dir: str) -> int:
    """Connections that are under way to a proxy."""
    found = open_map(pin_dir, "pending")
    if found is None:
        return 0
    with found as table:
        return len(list(table.keys()))


def level_of(cgroup: str, root: str) -> int:
    """Depth of a cgroup below the root of cgroup2, as bpf_get_current_ancestor_cgroup_id() counts it.

    :param root: str, where cgroup2 is mounted.
    """
    below = os.path.relpath(cgroup, root)
    return 0 if below == "." else below.count("/") + 1
