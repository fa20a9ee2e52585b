# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How programs talk on a port, from what was counted, and what redirection does for such talk. Pure functions.

The figures are ratios of speed to plain TCP: the lower quartiles of the table in docs/benchmark.md, rounded down, one
for each pattern. They are of one machine; what a host has measured for itself takes their place.
"""

from __future__ import annotations

from typing import Iterable, Mapping, NamedTuple, Optional

from .layout import NOTHING, Counts

#: Question and answer, on few connections or on many at once; one way, by the size of a message; a connection for
#: each question; hardly anything.
EXCHANGE, EXCHANGE_MANY, STREAM_LARGE, STREAM_MEDIUM = "exchange", "exchange_many", "stream_large", "stream_medium"
STREAM_SMALL, SHORT, IDLE = "stream_small", "short_connections", "idle"

#: Where figures come from.
TABLE, HOST = "table", "host"

#: "request/response" 0.88 of the time; "200 connections" and redis-benchmark; "one way" from 64 KiB on; "one way"
#: 32 KiB; smaller ones go by TCP by themselves; "connect, request, close".
_TABLE = {EXCHANGE: 1.1, EXCHANGE_MANY: 1.3, STREAM_LARGE: 1.4, STREAM_MEDIUM: 1.1, STREAM_SMALL: 1.0, SHORT: 0.9}

_IDLE_MESSAGES, _IDLE_BYTES = 20, 1 << 20
_RUN_BYTES = 256 << 10
_LARGE_MESSAGE = 60000
#: As ``sockredir_demote_after`` and ``sockredir_demote_below``: from there on the programs leave a direction to TCP.
_RUN_MESSAGES, _SMALL_MESSAGE = 32, 30000
_SHORT_EXCHANGES = 3
_MANY = 8


class Pattern(NamedTuple):
    """:ivar name: str, one of the patterns above.
    :ivar message: int, mean size of a message in bytes.
    :ivar at_once: float, mean number of connections at one time.
    """

    name: str
    message: int
    at_once: float


class Gain(NamedTuple):
    """:ivar ratio: float, expected speed relative to plain TCP.
    :ivar source: str, :data:`TABLE` or :data:`HOST`.
    """

    ratio: float
    source: str


def total(several: Iterable[Counts]) -> Counts:
    """All of them together."""
    result = NOTHING
    for counts in several:
        result = result.plus(counts)
    return result


def pattern(both_ends: Counts, connections: int, seconds: float) -> Pattern:
    """Which pattern this is.

    :param both_ends: what both ends have sent, together.
    :param connections: int, each counted once.
    :param seconds: float, how long it was watched.
    """
    sent, size = both_ends.sent_messages, both_ends.sent_bytes
    mean = size // sent if sent else 0
    # Each end's connections live as long.
    at_once = both_ends.nanoseconds * connections / max(1, both_ends.connections) / 1e9 / max(seconds, 1e-9)
    return Pattern(_name(both_ends, connections, mean, at_once), mean, round(at_once, 1))


def _name(both_ends: Counts, connections: int, mean: int, at_once: float) -> str:
    # A run is what one end sends before it hears something; who begins has one more.
    runs = max(1, both_ends.answers + connections)
    if both_ends.sent_messages < _IDLE_MESSAGES and both_ends.sent_bytes < _IDLE_BYTES:
        return IDLE
    long_runs = both_ends.sent_messages / runs >= _RUN_MESSAGES
    if both_ends.sent_bytes / runs >= _RUN_BYTES or long_runs:
        return STREAM_LARGE if mean >= _LARGE_MESSAGE else STREAM_MEDIUM if mean >= _SMALL_MESSAGE else STREAM_SMALL
    if runs < 2 * _SHORT_EXCHANGES * connections:
        return SHORT
    return EXCHANGE_MANY if at_once >= _MANY else EXCHANGE


def expected(name: str, measured: Optional[Mapping[str, float]] = None) -> Gain:
    """What to expect of a pattern.

    :param measured: what this host has measured, by pattern.
    """
    if measured and name in measured:
        return Gain(measured[name], HOST)
    return Gain(_TABLE.get(name, 1.0), TABLE)
