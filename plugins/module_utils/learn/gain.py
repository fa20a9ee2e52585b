# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The traffic pattern of a port, from what was counted, and what redirection gains for it. Pure functions.

A gain is a speed relative to plain TCP. Redirection saves some microseconds for each request and response, or for each
message of a stream; the programs' own work takes as long as before. So the gain follows from how long requests or
messages were seen to take, and from what was measured on this host. The table, which is of another machine, only has
the ratio for programs that do nothing but communicate.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple, Optional

from .layout import NOTHING, Counts
from .speeds import TABLE, Cost, Speeds

#: Requests and responses, on few connections or on many at once; large responses; one way, by the size of a message or
#: by sendfile; a connection for each request; hardly anything.
EXCHANGE, EXCHANGE_MANY, ANSWERS = "exchange", "exchange_many", "large_answers"
STREAM, STREAM_SMALL, FILES, SHORT, IDLE = "stream", "stream_small", "files", "short_connections", "idle"

_IDLE_MESSAGES, _IDLE_BYTES = 20, 1 << 20
_RUN_BYTES, _ONE_WAY_BYTES = 256 << 10, 2 << 20
#: sendfile hands over this much at a time. The programs leave files to TCP if streams of such messages are, and if one
#: way they are longer than a run of such pieces (``bpf/demotion.h``): ``_ONE_WAY_BYTES``.
_FILE_PIECE = 64 << 10
#: As ``sockredir_demote_after``: after so many, the programs leave small messages to TCP.
_RUN_MESSAGES = 32
_SHORT_EXCHANGES = 3
#: So many requests wait for a response at a time, on average.
_MANY = 2.0
#: The share of a request's time that redirection can save at most: the rest is not spent in the stack.
_MOST_SAVED = 0.4
#: The share of a large response's time that is the server's own work: it reads a file or a table before it sends.
_ANSWERING = 0.6


class Seen(NamedTuple):
    """Of a port, between programs of this host.

    :ivar both_ends: what both ends have sent, together.
    :ivar clients: what the clients' ends have counted.
    :ivar connections: int, each counted once.
    :ivar active: float, seconds in which there was traffic.
    :ivar seconds: float, how long it was watched.
    """

    both_ends: Counts
    clients: Counts
    connections: int
    active: float
    seconds: float


class Pattern(NamedTuple):
    """:ivar name: str, one of the patterns above.
    :ivar message: int, mean size of a message in bytes.
    :ivar at_once: float, mean number of connections at one time.
    :ivar took_us: float, microseconds of a request and its response, or of a message of a stream; None if not known.
    :ivar messages: float, how many a request and its response consist of.
    """

    name: str
    message: int
    at_once: float
    took_us: Optional[float]
    messages: float


class Gain(NamedTuple):
    """:ivar ratio: float, expected speed relative to plain TCP.
    :ivar source: str, see :mod:`.speeds`.
    """

    ratio: float
    source: str


def total(several: Iterable[Counts]) -> Counts:
    """All of them together."""
    result = NOTHING
    for counts in several:
        result = result.plus(counts)
    return result


def pattern(seen: Seen, smallest: Optional[int]) -> Pattern:
    """Which pattern this is.

    :param smallest: bytes a message, from which on streams are redirected; None: they never are.
    """
    both = seen.both_ends
    mean = both.sent_bytes // both.sent_messages if both.sent_messages else 0
    # Each end's connections live as long.
    lived = both.nanoseconds * seen.connections / max(1, both.connections) / 1e9
    name = _name(seen, mean, smallest)
    messages = both.sent_messages / _exchanges(seen)
    return Pattern(name, mean, round(lived / max(seen.seconds, 1e-9), 1), _took(name, seen), messages)


def _name(seen: Seen, mean: int, smallest: Optional[int]) -> str:
    both = seen.both_ends
    # A run is what one end sends before it receives something; the end that begins has one more.
    runs = max(1, both.answers + seen.connections)
    if both.sent_messages < _IDLE_MESSAGES and both.sent_bytes < _IDLE_BYTES:
        return IDLE
    one_way = both.sent_bytes / runs >= _ONE_WAY_BYTES
    if both.sent_bytes / runs >= _RUN_BYTES or both.sent_messages / runs >= _RUN_MESSAGES:
        if 2 * both.files > both.sent_messages and (one_way or smallest is None or smallest > _FILE_PIECE):
            return FILES
        if smallest is None or mean < smallest:
            return STREAM_SMALL
        return STREAM if one_way else ANSWERS
    if runs < 2 * _SHORT_EXCHANGES * seen.connections:
        return SHORT
    return EXCHANGE_MANY if _waiting(seen) >= _MANY else EXCHANGE


def _exchanges(seen: Seen) -> float:
    return max(1, seen.both_ends.answers + seen.connections) / 2


def _reply(seen: Seen) -> Optional[float]:
    """Seconds from a request to the end of its response."""
    return seen.clients.reply_ns / seen.clients.replies / 1e9 if seen.clients.replies else None


def _waiting(seen: Seen) -> float:
    """Requests that wait for a response at a time, by Little's law; 1 if it is not known."""
    reply = _reply(seen)
    return reply * _exchanges(seen) / seen.active if reply and seen.active else 1.0


def _took(name: str, seen: Seen) -> Optional[float]:
    if not seen.active:
        return None
    if name in (STREAM, STREAM_SMALL, FILES, ANSWERS):
        return round(seen.active / seen.both_ends.sent_messages * 1e6, 1)
    cycle, reply = seen.active / _exchanges(seen), _reply(seen)
    # With many waiting, each waits for the others too; with few, a cycle has pauses.
    return round(min(cycle, reply or cycle) * 1e6, 1)


def expected(found: Pattern, speeds: Speeds) -> Gain:
    """What to expect of a pattern."""
    ratio = 1.0
    if found.name in (EXCHANGE, EXCHANGE_MANY):
        ratio = _of_exchange(found, speeds)
    elif found.name in (STREAM, ANSWERS):
        ratio = _of_stream(found, speeds)
    return Gain(round(ratio, 2), speeds.source)


def _of_exchange(found: Pattern, speeds: Speeds) -> float:
    cost = speeds.many if found.name == EXCHANGE_MANY else speeds.single
    if speeds.source == TABLE or not found.took_us:
        return cost.ratio
    # Both were measured with two messages.
    saved = (cost.plain - cost.redirected) * found.messages / 2
    return found.took_us / (found.took_us - min(saved, _MOST_SAVED * found.took_us))


def _of_stream(found: Pattern, speeds: Speeds) -> float:
    cost = _of_size(found.message, speeds)
    took = cost.plain if speeds.source == TABLE or not found.took_us else found.took_us
    own_work = max(0.0, took - cost.plain)
    if found.name == ANSWERS:
        own_work = max(own_work, _ANSWERING * took)
    moving = took - own_work
    return took / (own_work + moving / cost.ratio)


def _of_size(message: int, speeds: Speeds) -> Cost:
    """Between two sizes that were measured, in proportion; beyond them, by the nearest."""
    sizes = sorted(speeds.streams)
    below = max((size for size in sizes if size <= message), default=sizes[0])
    above = min((size for size in sizes if size >= message), default=sizes[-1])
    low, high = speeds.streams[below], speeds.streams[above]
    if above <= below:
        scale = message / below
        return Cost(low.plain * scale, low.redirected * scale)
    part = (message - below) / (above - below)
    return Cost(*(one + part * (other - one) for one, other in zip(low, high)))
