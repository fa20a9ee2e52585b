# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``sockredirctl top`` shows: two looks at the counts become rates, and lines. Pure functions."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..datapath import layout
from ..datapath.reasons import DESCRIPTIONS, Reason, Unit
from . import context

Report = Dict[str, Any]
_LINE = "{:>5}  {:<10} {:>6} {:>8} {:>9} {:>12}  {:<16}  {}"
_NAMES = ("port", "verdict", "open", "conn/s", "msg/s", "redirected/s", "programs", "why")
KEYS = "q quit   sort: o open  c conn/s  m msg/s  b bytes/s  p port   r reverse   arrows scroll"
_SORTS = {"o": "open", "c": "connections", "m": "messages", "b": "bytes", "p": "port"}
_DOWN, _UP = ("j", "KEY_DOWN"), ("k", "KEY_UP")
#: The line with the columns' names; above it is what concerns the host.
HEAD = 3
_BY_TCP = [
    reason.label
    for reason, (unit, _text) in DESCRIPTIONS.items()
    if unit is Unit.MESSAGE and reason not in (Reason.UNDECIDED, Reason.REDIRECTED, Reason.WOULD_REDIRECT)
]
_OUTSIDE = [reason.label for reason in DESCRIPTIONS if reason.label.startswith("skip_")]


class Look(NamedTuple):
    """What was read at one time.

    :ivar time: seconds, of a clock that only goes on.
    :ivar ports: as :mod:`..host_report.ports` reports them.
    :ivar counts: by reason, since the maps were made.
    :ivar mode: None: the settings cannot be read.
    :ivar used: bytes of unread redirected data.
    """

    time: float
    ports: Sequence[Report]
    counts: Dict[str, layout.Count]
    mode: Optional[str]
    used: int


class View(NamedTuple):
    """What the person has asked for.

    :ivar first: how many ports are scrolled away.
    """

    sort: str = "bytes"
    reverse: bool = False
    first: int = 0


def press(view: View, key: str) -> Optional[View]:
    """The view after a key; None: quit. Other keys change nothing."""
    if key in ("q", "Q"):
        return None
    if key in _SORTS:
        return View(_SORTS[key])
    if key == "r":
        return view._replace(reverse=not view.reverse, first=0)
    if key in _DOWN or key in _UP:
        return view._replace(first=max(0, view.first + (1 if key in _DOWN else -1)))
    return view


def lines(before: Optional[Look], now: Look, view: View, height: Optional[int] = None) -> List[str]:
    """The whole screen, or all of it if ``height`` is None; the last line is for the keys if there is one.

    :param before: the look before; without one there are no rates.
    """
    rows = _sorted(_rates(before, now), view)
    shown = [*_host(before, now), _LINE.format(*_NAMES)]
    if height is None:
        return shown + [_row(row) for row in rows]
    room = max(0, height - HEAD - 2)
    first = min(view.first, max(0, len(rows) - room))
    return shown[: max(0, height - 1)] + [_row(row) for row in rows[first : first + room]]


def _host(before: Optional[Look], now: Look) -> List[str]:
    flows = layout.flows_now(now.counts)
    lines_of_host = [f"mode {now.mode or 'unknown'}, {flows} connections, {context.size(now.used)} unread"]
    if before is None:
        return [*lines_of_host, "measuring", ""]
    redirected = _grown(before, now, [Reason.REDIRECTED.label])
    size = _bytes(before, now, Reason.REDIRECTED.label)
    by_tcp, outside = _grown(before, now, _BY_TCP), _grown(before, now, _OUTSIDE)
    return [
        *lines_of_host,
        f"redirected: {sum(redirected.values()):.0f} messages/s, {context.size(int(size))}/s",
        f"by TCP: {_said(by_tcp)} messages/s   not in the map: {_said(outside)} sockets/s",
    ]


def _said(grown: Dict[str, float]) -> str:
    """``7 (ahead 5, behind 2)``: how many, and why."""
    some = [f"{name} {rate:.0f}" for name, rate in sorted(grown.items(), key=lambda one: -one[1]) if rate >= 0.5]
    return f"{sum(grown.values()):.0f}" + (f" ({', '.join(some)})" if some else "")


def _grown(before: Look, now: Look, reasons: Sequence[str]) -> Dict[str, float]:
    """Events a second by reason."""
    nothing = layout.Count(0, 0)
    return {
        reason: _rate(before, now, before.counts.get(reason, nothing).events, now.counts.get(reason, nothing).events)
        for reason in reasons
    }


def _bytes(before: Look, now: Look, reason: str) -> float:
    nothing = layout.Count(0, 0)
    return _rate(before, now, before.counts.get(reason, nothing).bytes, now.counts.get(reason, nothing).bytes)


def _rate(before: Look, now: Look, old: int, new: int) -> float:
    """Per second; none if the maps were created again in between."""
    return max(0, new - old) / max(now.time - before.time, 1e-3)


def _rates(before: Optional[Look], now: Look) -> List[Report]:
    """Each port with what it did a second instead of sums; None if that is not known."""
    old = {entry["port"]: entry for entry in before.ports} if before else {}
    return [{**entry, **_of_port(before, now, old.get(entry["port"]), entry)} for entry in now.ports]


def _of_port(before: Optional[Look], now: Look, old: Optional[Report], new: Report) -> Report:
    names = ("connections", "messages", "bytes")
    if before is None:
        return dict.fromkeys(names)
    return {name: _rate(before, now, old[name] if old else 0, new[name]) for name in names}


def _sorted(rows: List[Report], view: View) -> List[Report]:
    """Most first; ports by their number."""
    if view.sort == "port":
        return sorted(rows, key=lambda row: row["port"], reverse=view.reverse)
    return sorted(rows, key=lambda row: _order(row, view.sort), reverse=view.reverse)


def _order(row: Report, name: str) -> Tuple[float, int]:
    return -(row[name] or 0), row["port"]


def _row(row: Report) -> str:
    why = f"{', '.join(row['reasons'])}: {row['why']}" if row["reasons"] else row["why"]
    size = "" if row["bytes"] is None else context.size(int(row["bytes"]))
    rates = ["" if row[name] is None else f"{row[name]:.0f}" for name in ("connections", "messages")]
    names = ", ".join(row["programs"])[:16]
    return _LINE.format(row["port"], row["verdict"], row["open"], *rates, size, names, why).rstrip()
