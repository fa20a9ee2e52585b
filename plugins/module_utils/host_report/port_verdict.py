# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the programs have counted to a verdict for each server port. Pure functions."""

from __future__ import annotations

import collections
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

from ..datapath import layout
from ..datapath.reasons import DESCRIPTIONS, Reason
from ..learn import gain
from ..learn.speeds import Speeds
from ..learn.verdict import ACCELERATE, LEAVE, NO_GAIN, SECTIONS

NOTHING = layout.Port(0, 0, 0, 0, 0, 0, 0)
_MANY_OPEN = 8
_FIGURES = {reason.label: text for reason, (_unit, text) in DESCRIPTIONS.items()}
#: States of a direction that show that a port should be left alone: sections of docs/limits.md.
_BREAKS = {Reason.ULP.label: SECTIONS["kernel_tls"]}
_CARRIED = {Reason.REDIRECTED.label, Reason.UNDECIDED.label}

Report = Dict[str, Any]


class Open(NamedTuple):
    """The connections of a port that are in the map now.

    :ivar states: how many of their directions met each reason with their last message.
    """

    connections: int = 0
    messages: int = 0
    bytes: int = 0
    states: Mapping[str, int] = {}


class Host(NamedTuple):
    """What verdicts depend on beside the counts.

    :ivar leave_after: the setting; 0: no port is ever left alone.
    :ivar speeds: of plain TCP and redirection.
    """

    leave_after: int
    speeds: Speeds


def open_by_port(records: Iterable[Tuple[layout.Key, layout.Flow]]) -> Dict[int, Open]:
    """Live connections summed by the port of the end that accepted."""
    found: Dict[int, Open] = {}
    for key, flow in records:
        port = _server_port(key, flow)
        if port:
            found[port] = _added(found.get(port, Open()), flow.sides)
    return found


def _server_port(key: layout.Key, flow: layout.Flow) -> int:
    """0 as long as the server's end has not joined."""
    if flow.sides[0].server:
        return key.local_port
    return key.remote_port if flow.sides[1].server else 0


def _added(before: Open, sides: Sequence[layout.Side]) -> Open:
    states = collections.Counter(before.states)
    states.update(side.state for side in sides if side.messages)
    return Open(
        before.connections + 1,
        before.messages + sum(side.messages for side in sides),
        before.bytes + sum(side.bytes for side in sides),
        dict(states),
    )


def ports(
    ended: Mapping[int, layout.Port],
    live: Mapping[int, Open],
    programs: Mapping[int, List[str]],
    host: Host,
) -> List[Report]:
    """A verdict for each server port, those with most redirected bytes first.

    :param ended: the map ``ports``: of connections that are over.
    :param programs: who listens on each port.
    """
    found = [
        judge(port, ended.get(port, NOTHING), live.get(port, Open()), programs.get(port, []), host)
        for port in set(ended) | set(live)
    ]
    return sorted(found, key=lambda entry: (-entry["bytes"], entry["port"]))


def judge(port: int, past: layout.Port, now: Open, programs: List[str], host: Host) -> Report:
    """The verdict on one port, in the form of what ``learn`` reports."""
    reasons = sorted({_BREAKS[state] for state in now.states if state in _BREAKS})
    verdict, why = (LEAVE, _broken(now)) if reasons else _worth(past, now, host)
    return {
        "port": port,
        "verdict": verdict,
        "reasons": reasons,
        "programs": programs,
        "connections": past.connections + past.left_alone + now.connections,
        "bytes": past.bytes + now.bytes,
        "gain": _gain(past, now, host.speeds) if verdict == ACCELERATE else None,
        "gain_source": host.speeds.source if verdict == ACCELERATE else None,
        "why": why,
        "messages": past.messages + now.messages,
        "open": now.connections,
        "open_messages": now.messages,
        "open_bytes": now.bytes,
        "brief": past.brief,
        "demoted": past.demoted,
        "left_alone": past.left_alone,
        "worth": past.worth,
        "states": dict(sorted(now.states.items())),
    }


def _broken(now: Open) -> str:
    return "; ".join(_FIGURES[state] for state in sorted(now.states) if state in _BREAKS)


def _worth(past: layout.Port, now: Open, host: Host) -> Tuple[str, str]:
    if host.leave_after and past.worth <= -host.leave_after:
        return NO_GAIN, f"left alone: {_vain(past)}"
    if past.worth < 0 and 2 * (past.brief + past.demoted) > past.connections:
        return NO_GAIN, _vain(past)
    if past.bytes + now.bytes:
        return ACCELERATE, _carried(now)
    return NO_GAIN, _carried(now) if now.messages else "hardly used"


def _vain(past: layout.Port) -> str:
    if past.demoted > past.brief:
        return f"{past.demoted} of {past.connections} connections send small messages one way, or files"
    return f"{past.brief} of {past.connections} connections end after an exchange or two"


def _carried(now: Open) -> str:
    """What keeps messages of open connections on TCP."""
    said = [
        f"{count} by TCP ({state})" for state, count in sorted(now.states.items()) if count and state not in _CARRIED
    ]
    return "redirected" + (f"; directions now: {', '.join(said)}" if said else "")


def _gain(past: layout.Port, now: Open, speeds: Speeds) -> float:
    """Of programs that do nothing but communicate. Small messages that stay redirected are requests and responses."""
    mean = (past.bytes + now.bytes) // max(1, past.messages + now.messages)
    if speeds.smallest and mean >= speeds.smallest:
        name = gain.STREAM
    else:
        name = gain.EXCHANGE_MANY if now.connections >= _MANY_OPEN else gain.EXCHANGE
    return gain.expected(gain.Pattern(name, mean, float(now.connections), None, 2.0), speeds).ratio
