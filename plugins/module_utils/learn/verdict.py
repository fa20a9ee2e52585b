# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From counts to verdicts: which ports gain from redirection, and which would break. Pure functions."""

from __future__ import annotations

from typing import Any, Container, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from . import gain
from .layout import SIGNS, Counts, Key
from .speeds import ESTIMATE, Speeds

ACCELERATE, NO_GAIN, LEAVE = "accelerate", "no-gain", "leave"

#: The section of docs/limits.md for each sign.
SECTIONS = {
    "spliced": "splice-read",
    "waitall": "waitall",
    "low_water": "rcvlowat",
    "urgent": "urgent-data",
    "zero_copy": "zerocopy-completion",
    "kernel_tls": "ktls",
    "interrupted": "blocked-recv",
    "two_slept": "blocked-recv",
    "fionread": "fionread",
    "ring_waitall": "uring-waitall",
    "peek_offset": "peek-offset",
    "timestamps": "timestamps",
}

_WHY = {
    gain.EXCHANGE: "requests and responses on few connections",
    gain.EXCHANGE_MANY: "requests and responses on many connections",
    gain.ANSWERS: "large responses",
    gain.STREAM: "large messages one way",
    gain.STREAM_SMALL: "small messages one way: TCP is as fast",
    gain.FILES: "files sent by sendfile: TCP does not copy them",
    gain.SHORT: "few messages per connection: setting connections up costs more than redirection saves",
    gain.IDLE: "hardly used",
}
_OWN_WORK = "{}; but most of the time is the programs' own work, so redirection would save too little"
_REMOTE = "all connections are with other hosts"
#: A smaller gain is not worth a change.
_WORTH = 1.05

Report = Dict[str, Any]


class Silent(NamedTuple):
    """Connections of a port on which nothing was sent.

    :ivar program: str, who listens; empty if that is not known.
    """

    connections: int
    program: str


class Host(NamedTuple):
    """What verdicts depend on beside the counts.

    :ivar seconds: how long it was watched.
    :ivar active: seconds with traffic between programs of this host, by port.
    :ivar speeds: of plain TCP and redirection.
    :ivar harmless: those of :data:`.layout.SIGNS` that this kernel answers as TCP does.
    """

    seconds: float
    active: Mapping[int, float] = {}
    speeds: Speeds = ESTIMATE
    harmless: Container[str] = ()


def ports(counts: Mapping[Key, Counts], silent: Mapping[int, Silent], host: Host) -> List[Report]:
    """A verdict for each server port, those with most bytes first.

    :param counts: what was counted, by whose it is.
    :param silent: connections without a message, by port.
    """
    counts = {key: _without(count, host.harmless) for key, count in counts.items()}
    own = {key.port for key in counts if key.server or key.local} | set(silent)
    found = [
        judge(port, [pair for pair in counts.items() if pair[0].port == port], silent.get(port), host) for port in own
    ]
    return sorted(found, key=lambda entry: (-entry["bytes"], entry["port"]))


def _without(counts: Counts, harmless: Container[str]) -> Counts:
    return counts._replace(signs=tuple(0 if name in harmless else count for name, count in zip(SIGNS, counts.signs)))


def judge(port: int, parts: Sequence[Tuple[Key, Counts]], silent: Optional[Silent], host: Host) -> Report:
    """The verdict on one port.

    :param parts: what each program on it did.
    """
    local = [pair for pair in parts if pair[0].local]
    connections = _connections(local)
    found = gain.pattern(_seen(local, connections, host.active.get(port, 0.0), host.seconds), host.speeds.smallest)
    expected = gain.expected(found, host.speeds)
    reasons = _reasons(local)
    verdict = LEAVE if reasons else ACCELERATE if local and expected.ratio >= _WORTH else NO_GAIN
    everything = gain.total(counts for _key, counts in parts)
    return {
        "port": port,
        "verdict": verdict,
        "reasons": reasons,
        "programs": _programs(local or parts) or ([silent.program] if silent and silent.program else []),
        "connections": connections + _connections(_remote(parts)) + (silent.connections if silent else 0),
        "bytes": _bytes(parts),
        "gain": expected.ratio if verdict == ACCELERATE else None,
        "gain_source": expected.source if verdict == ACCELERATE else None,
        "pattern": found.name,
        "why": _why(verdict, reasons, local, parts, found.name),
        "message_bytes": found.message,
        "connections_at_once": found.at_once,
        "took_us": found.took_us,
        "local_share": _share(local, everything),
        "details": [_detail(key, counts) for key, counts in sorted(parts)],
    }


def _seen(local: Sequence[Tuple[Key, Counts]], connections: int, active: float, seconds: float) -> gain.Seen:
    both_ends = gain.total(counts for _key, counts in local)
    clients = gain.total(counts for key, counts in local if not key.server)
    return gain.Seen(both_ends, clients, connections, active, seconds)


def _remote(parts: Sequence[Tuple[Key, Counts]]) -> List[Tuple[Key, Counts]]:
    return [pair for pair in parts if not pair[0].local]


def _connections(parts: Sequence[Tuple[Key, Counts]]) -> int:
    """Each once, though both ends may have been seen."""
    ends = [sum(counts.connections for key, counts in parts if key.server is server) for server in (True, False)]
    return max(ends)


def _bytes(parts: Sequence[Tuple[Key, Counts]]) -> int:
    """Sent by one of the two ends; by both directions where only one end is on this host."""
    far = gain.total(counts for _key, counts in _remote(parts))
    near = [pair for pair in parts if pair[0].local]
    by_end = [gain.total(counts for key, counts in near if key.server is server) for server in (True, False)]
    # What one end was seen to send or the other to receive: either may be out of sight.
    up = max(by_end[0].sent_bytes, by_end[1].received_bytes)
    down = max(by_end[1].sent_bytes, by_end[0].received_bytes)
    return up + down + far.sent_bytes + far.received_bytes


def _share(local: Sequence[Tuple[Key, Counts]], everything: Counts) -> float:
    """Of the bytes, those between two programs of this host."""
    whole = everything.sent_bytes + everything.received_bytes
    inside = gain.total(counts for _key, counts in local)
    return round((inside.sent_bytes + inside.received_bytes) / whole, 2) if whole else 0.0


def _reasons(local: Sequence[Tuple[Key, Counts]]) -> List[str]:
    seen = gain.total(counts for _key, counts in local).signs
    return sorted({SECTIONS[name] for name, count in zip(SIGNS, seen) if count})


def _programs(parts: Sequence[Tuple[Key, Counts]]) -> List[str]:
    """The server's first."""
    ordered = sorted(parts, key=lambda pair: (not pair[0].server, pair[0].program))
    return list(dict.fromkeys(key.program for key, _counts in ordered))


def _why(
    verdict: str,
    reasons: Sequence[str],
    local: Sequence[Tuple[Key, Counts]],
    parts: Sequence[Tuple[Key, Counts]],
    pattern: str,
) -> str:
    if verdict == LEAVE:
        return "; ".join(f"{section}: {', '.join(_doers(local, section))}" for section in reasons)
    if parts and not local:
        return _REMOTE
    gaining = pattern in (gain.EXCHANGE, gain.EXCHANGE_MANY, gain.ANSWERS, gain.STREAM)
    return _OWN_WORK.format(_WHY[pattern]) if gaining and verdict == NO_GAIN else _WHY[pattern]


def _doers(local: Sequence[Tuple[Key, Counts]], section: str) -> List[str]:
    """The programs that make the calls of the section."""
    return sorted({key.program for key, counts in local if section in _sections(counts)})


def _sections(counts: Counts) -> List[str]:
    return sorted({SECTIONS[name] for name, count in zip(SIGNS, counts.signs) if count})


def _detail(key: Key, counts: Counts) -> Report:
    sizes = {str(1 << power): count for power, count in enumerate(counts.sizes) if count}
    return {
        "program": key.program,
        "cgroup_id": key.cgroup,
        "end": "server" if key.server else "client",
        "local": key.local,
        "connections": counts.connections,
        "seconds": round(counts.nanoseconds / 1e9, 3),
        "sent_bytes": counts.sent_bytes,
        "sent_messages": counts.sent_messages,
        "received_bytes": counts.received_bytes,
        "received_messages": counts.received_messages,
        "answers": counts.answers,
        "files": counts.files,
        "reply_us": round(counts.reply_ns / counts.replies / 1000, 1) if counts.replies else None,
        "sizes": sizes,
        "calls": {name: count for name, count in zip(SIGNS, counts.signs) if count},
    }
