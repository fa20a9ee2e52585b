# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast plain TCP and redirection are: as measured on this host, else by a table from another one.

Kept apart from what measures: an audit asks every host of a fleet for its ports, and measures on none.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Optional

from ..calibration import record

#: Where figures come from: measured when the host was enabled, or just now, or not here at all.
ENABLED, MEASURED, TABLE = "enabled", "measured", "table"


class Cost(NamedTuple):
    """Microseconds of a message, or of a request and its response."""

    plain: float
    redirected: float

    @property
    def ratio(self) -> float:
        """Above 1 if redirection is faster."""
        return self.plain / self.redirected


class Speeds(NamedTuple):
    """:ivar source: str, :data:`ENABLED`, :data:`MEASURED` or :data:`TABLE`.
    :ivar single: a request and its response on one connection.
    :ivar many: the same, by turns on many connections.
    :ivar streams: a message one way, by its bytes.
    :ivar smallest: bytes a message, from which on streams are redirected; None: they never are.
    :ivar problem: why nothing was measured; empty if something was, or nobody wanted it.
    """

    source: str
    single: Cost
    many: Cost
    streams: Mapping[int, Cost]
    smallest: Optional[int]
    problem: str = ""


#: Of the machine in docs/benchmark.md, rounded down.
ESTIMATE = Speeds(
    TABLE,
    Cost(20.0, 18.0),
    Cost(12.0, 9.6),
    {32768: Cost(11.0, 10.0), 65536: Cost(28.0, 20.0), 131072: Cost(50.0, 26.0)},
    32768,
)


def of_record(found: Mapping[str, Any], source: str) -> Optional[Speeds]:
    """From what calibration keeps; None if that is of another kernel or CPU, or not all there."""
    here = record.valid_for(None)
    if any(found.get(name) != here[name] for name in ("kernel", "cpu")):
        return None
    if not {"request_us", "many_us", "ratios", "plain_us"} <= set(found):
        return None
    plain = {int(size): took for size, took in found["plain_us"].items()}
    streams = {size: Cost(took, took / found["ratios"][str(size)]) for size, took in plain.items()}
    return Speeds(source, Cost(**found["request_us"]), Cost(**found["many_us"]), streams, found.get("stream_from"))


def as_json(speeds: Speeds) -> Dict[str, Any]:
    """For the report: microseconds, as pairs of plain TCP and redirection."""
    return {
        "source": speeds.source,
        "problem": speeds.problem,
        "request_us": speeds.single._asdict(),
        "many_us": speeds.many._asdict(),
        "streams_us": {str(size): _rounded(cost) for size, cost in sorted(speeds.streams.items())},
        "stream_from": speeds.smallest,
    }


def _rounded(cost: Cost) -> Dict[str, float]:
    return {name: round(value, 2) for name, value in cost._asdict().items()}
