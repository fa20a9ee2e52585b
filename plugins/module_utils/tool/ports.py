# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl ports``: what each server port gains, or would lose, from the programs' own counts."""

from __future__ import annotations

import sys
import time
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..errors import SockredirError
from ..host_report import ports
from . import context

Report = Dict[str, Any]
_LINE = "{:>5}  {:<10} {:>6} {:>11} {:>6} {:>11} {:>10}  {:<20}  {}"
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
#: Counters are of what has ended, so that they never go back: what is open is in gauges.
_COUNTERS = (
    ("connections", "open", "Connections that have ended or were left alone, by server port."),
    ("messages", "open_messages", "Messages of connections that have ended, by server port."),
    ("bytes", "open_bytes", "Redirected bytes of connections that have ended, by server port."),
)
_GAUGES = (
    ("open", "Connections in the map, by server port."),
    ("open_messages", "Messages of the connections in the map, by server port."),
    ("open_bytes", "Redirected bytes of the connections in the map, by server port."),
)
Metric = Tuple[str, str, str, List[Tuple[str, int]]]


def show(state_dir: str, as_json: bool) -> int:
    """Once."""
    found = observed(context.enabled(state_dir))
    if as_json:
        context.show_json({"ports": found})
    else:
        context.show(text(found))
    return context.OK


def watch(state_dir: str, as_json: bool, interval: float) -> int:
    """Again and again until Ctrl-C.

    :param interval: seconds.
    """
    clear = _HOME_AND_CLEAR if sys.stdout.isatty() and not as_json else ""
    try:
        while True:
            sys.stdout.write(clear)
            show(state_dir, as_json)
            sys.stdout.flush()
            time.sleep(interval)
    except KeyboardInterrupt:
        return context.OK


def observed(document: Mapping[str, Any]) -> List[Report]:
    """:raises SockredirError: there is no such map."""
    found = ports.of_document(document)
    if found is None:
        raise SockredirError(f"there is no ports map in {document['pin_dir']}", "run: sockredirctl restore")
    return found


def text(found: Sequence[Report]) -> List[str]:
    """A line for each port."""
    lines = [_LINE.format("port", "verdict", "gain", "connections", "open", "messages", "bytes", "programs", "why")]
    for entry in found:
        gain = f"{entry['gain']:.2f}x" if entry["gain"] else ""
        why = f"{', '.join(entry['reasons'])}: {entry['why']}" if entry["reasons"] else entry["why"]
        line = _LINE.format(
            entry["port"],
            entry["verdict"],
            gain,
            entry["connections"],
            entry["open"],
            entry["messages"],
            context.size(entry["bytes"]),
            ", ".join(entry["programs"]),
            why,
        )
        lines.append(line.rstrip())
    return lines


def metrics(found: Sequence[Report]) -> List[Metric]:
    """Name, kind, meaning and values by label of each metric; the programs know a thousand ports at most."""
    ordered = sorted(found, key=lambda entry: entry["port"])
    counters = [
        (f"sockredir_port_{key}_total", "counter", meaning, [(_label(one), one[key] - one[now]) for one in ordered])
        for key, now, meaning in _COUNTERS
    ]
    gauges = [
        (f"sockredir_port_{key}", "gauge", meaning, [(_label(one), one[key]) for one in ordered])
        for key, meaning in _GAUGES
    ]
    return counters + gauges


def _label(entry: Report) -> str:
    return f'port="{entry["port"]}"'
