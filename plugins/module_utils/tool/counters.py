# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl counters`` and ``flows``: what the programs have decided, and the connections they know."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .. import atomic_file
from ..calibration import record
from ..datapath import intercept_live, layout, live, reasons
from ..errors import SockredirError
from ..host_report import ports as host_ports
from ..resource.intercept.observe import recorded
from . import context, ports

Counters = Dict[str, layout.Count]
Record = Tuple[layout.Key, layout.Flow]


def show_counters(state_dir: str, form: str) -> int:
    """:param form: ``text``, ``json`` or ``prometheus``."""
    document = context.enabled(state_dir)
    now = _read(document["pin_dir"])
    source = document.get(record.SECTION, {})
    if form == "json":
        streams = {"demote_below": now.below, "source": source.get("source")}
        context.show_json({**as_json(now.counts, now.used, now.budget), "streams": streams})
    elif form == "prometheus":
        context.show(_metrics(document, now))
    else:
        context.show([*text(now.counts, now.used, now.budget), record.words(now.below, source)])
    return context.OK


def write_metrics(state_dir: str, path: str) -> int:
    """Write what ``prometheus`` shows to a file, for all to read; who reads it finds it whole."""
    document = context.enabled(state_dir)
    lines = _metrics(document, _read(document["pin_dir"]))
    atomic_file.write(path, "".join(f"{line}\n" for line in lines).encode(), 0o644)
    return context.OK


class _Now(NamedTuple):
    counts: Counters
    used: Optional[int]
    budget: Optional[int]
    below: Optional[int]


def _read(pin_dir: str) -> _Now:
    counts = live.counters(pin_dir)
    if counts is None:
        raise SockredirError(f"there is no counters map in {pin_dir}", "run: sockredirctl restore")
    found = live.read_settings(pin_dir)
    settings = found.settings if found else None
    budget, below = (settings.budget, settings.demote_below) if settings else (None, None)
    return _Now(counts, live.used(pin_dir), budget, below)


def _metrics(document: Dict[str, Any], now: _Now) -> List[str]:
    return prometheus(*now) + by_port(document) + intercepted(document)


def as_json(counts: Counters, used: Optional[int], budget: Optional[int]) -> Dict[str, Any]:
    """Counters by reason, and what they add up to now."""
    return {
        "counters": {name: {"messages": count.events, "bytes": count.bytes} for name, count in counts.items()},
        "flows": layout.flows_now(counts),
        "memory": {"used": used, "budget": budget},
    }


def text(counts: Counters, used: Optional[int], budget: Optional[int]) -> List[str]:
    """A table of what has happened at least once."""
    lines = [f"{'reason':<16} {'what':<8} {'count':>14} {'bytes':>12}  meaning"]
    for reason, (unit, meaning) in reasons.DESCRIPTIONS.items():
        count = counts.get(reason.label)
        if count and count.events:
            size = context.size(count.bytes) if count.bytes else ""
            lines.append(f"{reason.label:<16} {unit.value:<8} {count.events:>14} {size:>12}  {meaning}")
    lines.append(f"connections now: {layout.flows_now(counts)}")
    if used is not None and budget is not None:
        lines.append(f"unread redirected data: {context.size(used)} of {context.size(budget)}")
    return lines


def prometheus(counts: Counters, used: Optional[int], budget: Optional[int], below: Optional[int] = None) -> List[str]:
    """The text exposition format, for the node exporter's textfile collector."""
    lines: List[str] = []
    for unit in reasons.Unit:
        known = [reason for reason, (kind, _text) in reasons.DESCRIPTIONS.items() if kind is unit and reason]
        values = [
            (f'reason="{reason.label}"', counts[reason.label].events) for reason in known if reason.label in counts
        ]
        lines += _metric(
            f"sockredir_{unit.value}s_total", "counter", f"{unit.value.capitalize()}s by what became of them.", values
        )
    messages = [r for r, (kind, _text) in reasons.DESCRIPTIONS.items() if kind is reasons.Unit.MESSAGE and r]
    values = [(f'reason="{reason.label}"', counts[reason.label].bytes) for reason in messages if reason.label in counts]
    lines += _metric("sockredir_message_bytes_total", "counter", "Bytes of messages by what became of them.", values)
    lines += _metric("sockredir_flows", "gauge", "Connections in the map.", [("", layout.flows_now(counts))])
    if used is not None:
        lines += _metric("sockredir_unread_bytes", "gauge", "Unread redirected data.", [("", used)])
    if budget is not None:
        lines += _metric("sockredir_budget_bytes", "gauge", "Limit of unread redirected data.", [("", budget)])
    if below is not None:
        meaning = "One-way runs of smaller messages go by TCP."
        lines += _metric("sockredir_demote_below_bytes", "gauge", meaning, [("", below)])
    return lines


def by_port(document: Dict[str, Any]) -> List[str]:
    """What was counted of each server port; nothing if an earlier version's maps have no such counts."""
    found = host_ports.of_document(document, programs=False)
    return [line for metric in ports.metrics(found or []) if metric[3] for line in _metric(*metric)]


def intercepted(document: Dict[str, Any]) -> List[str]:
    """What interception has done, by rule; nothing if its programs are not loaded."""
    counts = intercept_live.counters(document["pin_dir"])
    if counts is None:
        return []
    names = {0: "", **{rule["slot"]: rule["name"] for rule in recorded(document)}}
    values = [
        (f'rule="{names[slot]}",event="{event}"', count)
        for slot in sorted(names)
        for event, count in counts[slot].items()
        if slot or count
    ]
    return _metric("sockredir_intercept_events_total", "counter", "What interception has done, by rule.", values)


def _metric(name: str, kind: str, meaning: str, values: List[Tuple[str, int]]) -> List[str]:
    head = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    return head + [f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in values]


def show_flows(state_dir: str, as_json_text: bool, limit: Optional[int]) -> int:
    pin_dir = context.enabled(state_dir)["pin_dir"]
    records = live.flows(pin_dir, limit)
    if records is None:
        raise SockredirError(f"there is no flows map in {pin_dir}", "run: sockredirctl restore")
    if as_json_text:
        context.show_json([flow_json(one) for one in records])
        return context.OK
    for one in records:
        context.show(flow_text(one))
    return context.OK


def flow_json(record: Record) -> Dict[str, Any]:
    """A connection with its two directions."""
    key, flow = record
    ends = ((key.local, key.local_port), (key.remote, key.remote_port))
    return {
        "netns": key.netns,
        "opened_ns": flow.opened,
        "sides": [
            {
                "address": address,
                "port": port,
                "server": side.server,
                "alive": bool(side.cookie),
                "cookie": side.cookie,
                "state": side.state,
                "messages": side.messages,
                "bytes": side.bytes,
                "unread": side.charge,
            }
            for (address, port), side in zip(ends, flow.sides)
        ],
    }


def flow_text(record: Record) -> List[str]:
    """One line for each direction of a connection, the client's first."""
    shown = flow_json(record)["sides"]
    pairs = [(shown[0], shown[1]), (shown[1], shown[0])]
    pairs.sort(key=lambda pair: pair[0]["server"])
    return [
        f"{_end(source)} --> {_end(target)} {source['state'] if source['alive'] else 'closed'}"
        f" {source['messages']} messages {context.size(source['bytes'])}"
        for source, target in pairs
    ]


def _end(side: Dict[str, Any]) -> str:
    address = f"[{side['address']}]" if ":" in side["address"] else side["address"]
    return f"{address}:{side['port']}"
