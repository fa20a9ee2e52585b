# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and values of the data path's maps: the Python mirror of ``bpf/sockredir.h``.

Pure functions between bytes and named values; nothing here touches the kernel. Integers are in the
host's byte order, as BPF maps have them; addresses are v4-mapped inside and plain text outside.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Iterable, NamedTuple

from ..errors import SockredirError
from .reasons import Reason, reason_label

LAYOUT = 2
MAX_PORTS = 32
MAX_CIDRS = 16
REASONS_SIZE = 64

KEY = struct.Struct("=Q16s16sHHI")
COUNT = struct.Struct("=QQ")
SIDE = struct.Struct("=QQQQIIQHBBHHQIB3s")
FLOW_HEAD = struct.Struct("=QQ")
PRESSURE = struct.Struct("=QQ")
EVENT = struct.Struct("=QII16sII16s16sHHI")
SETTINGS_HEAD = struct.Struct("=IIIIQQIIIIIIII")
PORT = struct.Struct("=QQQQQQqQ")
PORTS = struct.Struct("=HH")
CIDR = struct.Struct("=16sI")

KEY_SIZE = KEY.size
FLOW_SIZE = FLOW_HEAD.size + 2 * SIDE.size
SETTINGS_SIZE = SETTINGS_HEAD.size + 2 * MAX_PORTS * PORTS.size + MAX_CIDRS * CIDR.size

CROSS_NETNS = 1
SIDE_SERVER = 1
SIDE_SEGMENT_CB = 2
SIDE_STARTED = 8
SIDE_BARRED = 16
SIDE_LEFT = 32


class LayoutError(SockredirError, ValueError):
    """Bytes that are not what the layout says, or values that it cannot hold."""


def exactly(raw: bytes, size: int, what: str) -> None:
    """:raises LayoutError: the value has another size than the layout says."""
    if len(raw) != size:
        raise LayoutError(
            f"{what} has {len(raw)} bytes, layout {LAYOUT} has {size}",
            "the pinned maps belong to another version: enable again",
        )


def encode_address(text: str) -> bytes:
    """16 bytes, v4-mapped, of an IPv4 or IPv6 address; LayoutError when it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise LayoutError(f"not an IP address: {text!r}") from error
    if address.version == 4:
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def decode_address(raw: bytes) -> str:
    """Text of 16 bytes: dotted for v4-mapped ones."""
    address = ipaddress.IPv6Address(bytes(raw))
    return str(address.ipv4_mapped or address)


class Key(NamedTuple):
    """A socket in ``peers`` as it sees itself; in ``flows``, side 0 of the connection."""

    netns: int
    """Cookie of the network namespace, 0 for a pair allowed across namespaces."""
    local: str
    local_port: int
    remote: str
    remote_port: int

    @property
    def reverse(self) -> Key:
        """The same connection from its other end."""
        return Key(self.netns, self.remote, self.remote_port, self.local, self.local_port)


def encode_key(key: Key) -> bytes:
    """Map key bytes; LayoutError for an impossible address, port or cookie."""
    try:
        return KEY.pack(
            key.netns, encode_address(key.local), encode_address(key.remote), key.local_port, key.remote_port, 0
        )
    except struct.error as error:
        raise LayoutError(f"no such flow key: {key}: {error}") from error


def decode_key(raw: bytes) -> Key:
    """Key of ``peers`` or ``flows``."""
    exactly(raw, KEY_SIZE, "a flow key")
    netns, local, remote, local_port, remote_port, _zero = KEY.unpack(raw)
    return Key(netns, decode_address(local), local_port, decode_address(remote), remote_port)


class Side(NamedTuple):
    """One end of a flow and the direction that begins there."""

    cookie: int
    """Socket cookie (as in ``ss -e``), 0 when the socket is gone."""
    state: str
    """Label of the reason that its next message meets: redirected, undecided or why TCP."""
    messages: int
    """Seen by the verdict program."""
    bytes: int
    """Redirected."""
    charge: int
    """Bytes held against the memory budget."""
    unread: int
    """Bytes, upper bound: redirected and maybe not read by the peer."""
    run: int
    """Messages that count towards demotion, since the peer last sent."""
    server: bool
    """This end accepted the connection."""
    left: bool
    """The socket left the map alive: plain TCP."""


class Flow(NamedTuple):
    """A value of ``flows``; sides[0] is the key's local end."""

    opened: int
    """CLOCK_MONOTONIC, nanoseconds."""
    sides: tuple


def _decode_side(raw: bytes) -> Side:
    cookie, _sk, unread, charge, messages, _edge, size, state, *rest = SIDE.unpack(raw)
    _way_back, _vain, run, _heard, flags, _queued, _widened, _zero = rest
    return Side(
        cookie=cookie,
        state=reason_label(state),
        messages=messages,
        bytes=size,
        charge=charge,
        unread=unread,
        run=run,
        server=bool(flags & SIDE_SERVER),
        left=bool(flags & SIDE_LEFT),
    )


def decode_flow(raw: bytes) -> Flow:
    """Value of ``flows``."""
    exactly(raw, FLOW_SIZE, "a flow record")
    _owners, opened = FLOW_HEAD.unpack_from(raw)
    first = FLOW_HEAD.size
    second = first + SIDE.size
    return Flow(opened, (_decode_side(raw[first:second]), _decode_side(raw[second:])))


class Count(NamedTuple):
    """One counter."""

    events: int
    bytes: int


def sum_counter(raw: bytes) -> Count:
    """Sum of a per-CPU value of ``counters`` (as the kernel gives it: one count per possible CPU)."""
    if not raw or len(raw) % COUNT.size:
        raise LayoutError(f"a counter has {len(raw)} bytes, not a multiple of {COUNT.size}")
    counts = list(COUNT.iter_unpack(raw))
    return Count(sum(events for events, _size in counts), sum(size for _events, size in counts))


def name_counters(counts: Iterable[Count]) -> dict:
    """Counters by label, in the order of the map; what has no name in this version is left out."""
    by_index = list(counts)
    return {reason.label: by_index[reason] for reason in Reason if reason and reason < len(by_index)}


def flows_now(counters: dict) -> int:
    """Live connections, from :func:`name_counters`."""
    return counters["flow_opened"].events - counters["flow_closed"].events


class Pressure(NamedTuple):
    """The value of ``pressure``."""

    used: int
    """Bytes charged on the whole host."""


def decode_pressure(raw: bytes) -> Pressure:
    """Value of ``pressure``."""
    exactly(raw, PRESSURE.size, "the pressure value")
    return Pressure(PRESSURE.unpack(raw)[0])


class Port(NamedTuple):
    """A value of ``ports``: what the connections to a server port were like, those that have ended."""

    connections: int
    brief: int
    """Ended after an exchange or two."""
    demoted: int
    """Turned to TCP for good: small messages one way, files."""
    messages: int
    bytes: int
    """Redirected."""
    left_alone: int
    """Connections that were kept out of the map."""
    worth: int
    """What redirection has been worth lately; negative: nothing."""


def decode_port(raw: bytes) -> Port:
    """Value of ``ports``."""
    exactly(raw, PORT.size, "a port's record")
    return Port(*PORT.unpack(raw)[:-1])


class Event(NamedTuple):
    """One socket put in the map."""

    time: int
    """CLOCK_MONOTONIC, nanoseconds."""
    cpu: int
    pid: int
    comm: str
    op: int
    """4: connected, 5: accepted."""
    family: int
    """4 or 6."""
    local: str
    local_port: int
    remote: str
    remote_port: int


def decode_event(raw: bytes) -> Event:
    """A record of ``events`` (the ring may pad it)."""
    if len(raw) < EVENT.size:
        raise LayoutError(f"a trace event has {len(raw)} bytes, layout {LAYOUT} has {EVENT.size}")
    time, cpu, pid, comm, op, family, local, remote, local_port, remote_port, _zero = EVENT.unpack_from(raw)
    return Event(
        time,
        cpu,
        pid,
        decode_comm(comm),
        op,
        family,
        decode_address(local),
        local_port,
        decode_address(remote),
        remote_port,
    )


def format_event(event: Event) -> str:
    """The line of ``sockredirctl trace``."""
    return (
        f"{moment(event.comm, event.pid, event.cpu, event.time)}: "
        f"ipv{event.family} op={event.op} "
        f"{endpoint(event.local, event.local_port)} --> {endpoint(event.remote, event.remote_port)}"
    )


def decode_comm(raw: bytes) -> str:
    """The name of a thread, as the kernel keeps it."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def moment(comm: str, pid: int, cpu: int, time: int) -> str:
    """Who ran, where and when: the beginning of a line of ``sockredirctl trace``.

    :param time: int, nanoseconds.
    """
    name = "".join(c if c.isprintable() else "?" for c in comm)
    seconds, nanoseconds = divmod(time, 10**9)
    return f"{name}-{pid} [{cpu:03d}] {seconds}.{nanoseconds // 1000:06d}"


def endpoint(address: str, port: int) -> str:
    """``ADDRESS:PORT``, that of IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
