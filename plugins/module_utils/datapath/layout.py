# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and values of the data path's maps: the Python mirror of ``bpf/sockredir.h``.

Pure functions between bytes and named values; nothing here touches the kernel. Integers are in the
host's byte order, as BPF maps have them; addresses are v4-mapped inside and plain text outside.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import Iterable, NamedTuple

from ..errors import SockredirError

LAYOUT = 2
MAX_PORTS = 32
MAX_CIDRS = 16
REASONS_SIZE = 64

DEFAULT_BUDGET = 256 << 20
DEFAULT_DEMOTE_BELOW = 30000
DEFAULT_DEMOTE_AFTER = 32
DEFAULT_LEAVE_AFTER = 32
MAX_LEAVE_AFTER = 64
MIN_BUDGET = 64 << 10
"""Bytes. Below it a single message of common size could not be redirected."""

KEY = struct.Struct("=Q16s16sHHI")
COUNT = struct.Struct("=QQ")
SIDE = struct.Struct("=QQQQIIQHBBHHQII")
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


class Mode(enum.IntEnum):
    """What the programs do; ``settings.mode``."""

    UNSET = 0
    ENFORCE = 1
    OBSERVE = 2
    DRAIN = 3


class Unit(str, enum.Enum):
    """What a reason counts."""

    MESSAGE = "message"
    SOCKET = "socket"
    FLOW = "flow"
    EVENT = "event"


class Reason(enum.IntEnum):
    """Why something happened: index into ``counters``, state of a direction."""

    UNDECIDED = 0
    REDIRECTED = 1
    WOULD_REDIRECT = 2
    NO_PEER = 3
    NO_FLOW = 4
    SENT_BEFORE = 5
    OVER_BUDGET = 6
    DEMOTED = 7
    DRAINED = 8
    ULP = 9
    REFUSED = 10
    SOCKET_ADDED = 11
    SOCKET_CLOSED = 12
    SOCKET_LEFT = 13
    SKIP_REMOTE = 14
    SKIP_POLICY = 15
    SKIP_MODE = 16
    SKIP_KIND = 17
    SKIP_ALONE = 18
    SKIP_FULL = 19
    SKIP_FAILED = 20
    FLOW_OPENED = 21
    FLOW_CLOSED = 22
    RECOUNTED = 23
    EVENT_LOST = 24
    STALE_FLOW = 25
    AHEAD = 26
    WAITED = 27
    BEHIND = 28
    CUT = 29
    OBSERVED = 30
    SKIP_VAIN = 31

    @property
    def label(self) -> str:
        """The name in reports and metrics, as ``redirected``."""
        return self.name.lower()


DESCRIPTIONS = {
    Reason.UNDECIDED: (Unit.MESSAGE, "before the first message of a direction; counts nothing"),
    Reason.REDIRECTED: (Unit.MESSAGE, "handed to the receiving socket, past the TCP/IP stack"),
    Reason.WOULD_REDIRECT: (Unit.MESSAGE, "segments with data of connections that ended in mode observe"),
    Reason.NO_PEER: (Unit.MESSAGE, "by TCP: no socket of the other end in the map"),
    Reason.NO_FLOW: (Unit.MESSAGE, "by TCP: the socket's flow has no record"),
    Reason.SENT_BEFORE: (Unit.MESSAGE, "by TCP: earlier bytes went by TCP, redirected ones would overtake them"),
    Reason.OVER_BUDGET: (Unit.MESSAGE, "by TCP: too much is unread on the whole host (memory budget)"),
    Reason.DEMOTED: (Unit.MESSAGE, "by TCP: one-way run of small messages, where TCP is faster"),
    Reason.DRAINED: (Unit.MESSAGE, "by TCP: the mode is drain or observe, or the settings make no sense"),
    Reason.ULP: (Unit.MESSAGE, "by TCP: another protocol (kTLS) sits on the socket"),
    Reason.REFUSED: (Unit.MESSAGE, "by TCP: the kernel refused the redirect"),
    Reason.SOCKET_ADDED: (Unit.SOCKET, "put in the map when established"),
    Reason.SOCKET_CLOSED: (Unit.SOCKET, "closed while in the map"),
    Reason.SOCKET_LEFT: (Unit.SOCKET, "left the map alive: plain TCP from then on, at no cost"),
    Reason.SKIP_REMOTE: (Unit.SOCKET, "not in the map: its two ends are not both local"),
    Reason.SKIP_POLICY: (Unit.SOCKET, "not in the map: the server port is excluded or not included"),
    Reason.SKIP_MODE: (Unit.SOCKET, "not in the map: mode drain, or settings missing, changing or nonsense"),
    Reason.SKIP_KIND: (Unit.SOCKET, "not in the map: bound to a device, MPTCP, connected to itself or once before"),
    Reason.SKIP_ALONE: (Unit.SOCKET, "not in the map: accepted from a client that is not in it"),
    Reason.SKIP_FULL: (Unit.SOCKET, "not in the map: the map is full"),
    Reason.SKIP_FAILED: (Unit.SOCKET, "not in the map: the kernel would not take the socket"),
    Reason.FLOW_OPENED: (Unit.FLOW, "connections that got a record"),
    Reason.FLOW_CLOSED: (Unit.FLOW, "connections whose record is gone again"),
    Reason.RECOUNTED: (Unit.EVENT, "the budget was counted anew; bytes: found to be free"),
    Reason.EVENT_LOST: (Unit.EVENT, "trace event lost, the ring was full"),
    Reason.STALE_FLOW: (Unit.EVENT, "record found whose sockets went while no program was attached"),
    Reason.AHEAD: (Unit.MESSAGE, "by TCP: the reader is a window behind"),
    Reason.WAITED: (Unit.EVENT, "messages whose writer waited some microseconds for the reader"),
    Reason.BEHIND: (Unit.MESSAGE, "by TCP: earlier messages went by TCP and have not arrived yet"),
    Reason.CUT: (Unit.EVENT, "segments whose beginning had come before; bytes: cut off"),
    Reason.OBSERVED: (Unit.SOCKET, "not in the map: mode observe; counted when it ends"),
    Reason.SKIP_VAIN: (Unit.SOCKET, "not in the map: connections to this port gain nothing by it"),
}


def _exactly(raw: bytes, size: int, what: str) -> None:
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
    _exactly(raw, KEY_SIZE, "a flow key")
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


def reason_label(value: int) -> str:
    """Label of a reason, or ``reason_N`` for one that this version does not know."""
    try:
        return Reason(value).label
    except ValueError:
        return f"reason_{value}"


def _decode_side(raw: bytes) -> Side:
    cookie, _sk, unread, charge, messages, _edge, size, state, *rest = SIDE.unpack(raw)
    _way_back, _vain, run, _heard, flags, _queued, _zero = rest
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
    _exactly(raw, FLOW_SIZE, "a flow record")
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
    _exactly(raw, PRESSURE.size, "the pressure value")
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
    _exactly(raw, PORT.size, "a port's record")
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
    name = comm.split(b"\0", 1)[0].decode("utf-8", "replace")
    return Event(
        time, cpu, pid, name, op, family, decode_address(local), local_port, decode_address(remote), remote_port
    )


def format_event(event: Event) -> str:
    """The line of ``sockredirctl trace``."""
    comm = "".join(c if c.isprintable() else "?" for c in event.comm)
    seconds, nanoseconds = divmod(event.time, 10**9)
    return (
        f"{comm}-{event.pid} [{event.cpu:03d}] {seconds}.{nanoseconds // 1000:06d}: "
        f"ipv{event.family} op={event.op} "
        f"{_endpoint(event.local, event.local_port)} --> {_endpoint(event.remote, event.remote_port)}"
    )


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Settings(NamedTuple):
    """The value of ``settings``, checked when encoded and when decoded."""

    mode: Mode = Mode.ENFORCE
    budget: int = DEFAULT_BUDGET
    """Bytes of unread redirected data on the whole host."""
    cross_netns: bool = False
    include: tuple = ()
    """Server ports: (low, high) pairs, both included; empty means all."""
    exclude: tuple = ()
    """Server ports: (low, high) pairs; wins over include."""
    cidrs: tuple = ()
    """Networks as text: a pair with both ends in any of them is local."""
    demote_below: int = DEFAULT_DEMOTE_BELOW
    """Bytes; 0: never."""
    demote_after: int = DEFAULT_DEMOTE_AFTER
    """Messages in a row."""
    leave_after: int = DEFAULT_LEAVE_AFTER
    """Connections without gain until their port is left alone; 0: never."""
    trace_until: int = 0
    """CLOCK_MONOTONIC, nanoseconds."""
    generation: int = 0
    """Odd while a writer is at work."""


def _number(value: object, low: int, high: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise LayoutError(f"settings: {what} is {value!r}, not a number from {low} to {high}")
    return value


def _encode_ports(ranges: tuple, what: str) -> bytes:
    if len(ranges) > MAX_PORTS:
        raise LayoutError(f"settings: {len(ranges)} {what} port ranges, at most {MAX_PORTS} fit", "join ranges")
    raw = b""
    for low, high in ranges:
        _number(low, 1, 65535, f"{what} port")
        _number(high, 1, 65535, f"{what} port")
        if low > high:
            raise LayoutError(f"settings: {what} port range {low}-{high} ends before it begins")
        raw += PORTS.pack(low, high)
    return raw.ljust(MAX_PORTS * PORTS.size, b"\0")


def _encode_cidr(text: str) -> bytes:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise LayoutError(f"settings: {error}", "write it as 10.1.0.0/16 or fd00::/8") from error
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return CIDR.pack(encode_address(str(network.network_address)), bits)


def _decode_cidr(raw: bytes) -> str:
    address, bits = CIDR.unpack(raw)
    if bits > 128:
        raise LayoutError(f"settings: prefix length {bits} of {decode_address(address)}, at most 128")
    text = decode_address(address)
    if "." in text and bits >= 96:
        bits -= 96
    else:
        text = str(ipaddress.IPv6Address(address))
    try:
        return str(ipaddress.ip_network(f"{text}/{bits}"))
    except ValueError as error:
        raise LayoutError(f"settings: {error}") from error


def encode_settings(settings: Settings) -> bytes:
    """Map value of checked settings; LayoutError names the one that is impossible."""
    if settings.mode not in (Mode.ENFORCE, Mode.OBSERVE, Mode.DRAIN):
        raise LayoutError(f"settings: mode is {settings.mode!r}", "use enforce, observe or drain")
    if len(settings.cidrs) > MAX_CIDRS:
        raise LayoutError(f"settings: {len(settings.cidrs)} CIDRs, at most {MAX_CIDRS} fit", "join networks")
    if settings.cross_netns and not settings.cidrs:
        raise LayoutError("settings: cross_netns without CIDRs", "name the networks of both namespaces in cidrs")
    include = _encode_ports(settings.include, "include")
    exclude = _encode_ports(settings.exclude, "exclude")
    cidrs = b"".join(_encode_cidr(text) for text in settings.cidrs)
    head = SETTINGS_HEAD.pack(
        LAYOUT,
        SETTINGS_SIZE,
        int(settings.mode),
        CROSS_NETNS if settings.cross_netns else 0,
        _number(settings.budget, MIN_BUDGET, 2**62, "budget"),
        _number(settings.trace_until, 0, 2**64 - 1, "trace_until"),
        _number(settings.demote_below, 0, 2**31, "demote_below"),
        _number(settings.demote_after, 1, 65535, "demote_after"),
        _number(settings.generation, 0, 2**32 - 1, "generation"),
        len(settings.include),
        len(settings.exclude),
        len(settings.cidrs),
        _number(settings.leave_after, 0, MAX_LEAVE_AFTER, "leave_after"),
        0,
    )
    return head + include + exclude + cidrs.ljust(MAX_CIDRS * CIDR.size, b"\0")


def is_unset(raw: bytes) -> bool:
    """Nobody has written settings yet (the map's zeros)."""
    return not any(raw)


def decode_settings(raw: bytes) -> Settings:
    """Settings of a map value. LayoutError says what is wrong with one that makes no sense."""
    _exactly(raw, SETTINGS_SIZE, "the settings value")
    fields = SETTINGS_HEAD.unpack_from(raw)
    version, size, mode, flags, budget, trace_until, below, after, generation, *rest = fields
    n_include, n_exclude, n_cidrs, leave_after, _zero = rest
    if is_unset(raw):
        raise LayoutError("settings: never written")
    if version != LAYOUT or size != SETTINGS_SIZE:
        raise LayoutError(f"settings: version {version} and size {size}, not {LAYOUT} and {SETTINGS_SIZE}")
    if mode not in (Mode.ENFORCE, Mode.OBSERVE, Mode.DRAIN):
        raise LayoutError(f"settings: no such mode: {mode}")
    if flags & ~CROSS_NETNS:
        raise LayoutError(f"settings: unknown flags {flags:#x}")
    _number(n_include, 0, MAX_PORTS, "number of include ranges")
    _number(n_exclude, 0, MAX_PORTS, "number of exclude ranges")
    _number(n_cidrs, 0, MAX_CIDRS, "number of CIDRs")
    ports = SETTINGS_HEAD.size
    excluded = ports + MAX_PORTS * PORTS.size
    cidrs = excluded + MAX_PORTS * PORTS.size
    settings = Settings(
        mode=Mode(mode),
        budget=budget,
        cross_netns=bool(flags & CROSS_NETNS),
        include=tuple(PORTS.unpack_from(raw, ports + i * PORTS.size) for i in range(n_include)),
        exclude=tuple(PORTS.unpack_from(raw, excluded + i * PORTS.size) for i in range(n_exclude)),
        cidrs=tuple(_decode_cidr(raw[cidrs + i * CIDR.size : cidrs + (i + 1) * CIDR.size]) for i in range(n_cidrs)),
        demote_below=below,
        demote_after=after,
        leave_after=leave_after,
        trace_until=trace_until,
        generation=generation,
    )
    encode_settings(settings)
    return settings


_GENERATION_AT = struct.calcsize("=IIIIQQII")


def change_steps(current: bytes, wanted: Settings) -> list:
    """The values to write one after the other, so that no socket meets half a policy.

    First the current value with an odd generation, then the wanted ones with the same, then with the
    next even one. ``wanted.generation`` does not matter. Idempotence is the caller's: compare first.
    """
    _exactly(current, SETTINGS_SIZE, "the settings value")
    (generation,) = struct.unpack_from("=I", current, _GENERATION_AT)
    odd = generation | 1
    begun = bytearray(current)
    struct.pack_into("=I", begun, _GENERATION_AT, odd)
    return [
        bytes(begun),
        encode_settings(wanted._replace(generation=odd)),
        encode_settings(wanted._replace(generation=(odd + 1) & 0xFFFFFFFF)),
    ]


def same_settings(one: Settings, other: Settings) -> bool:
    """Equal as an operator sees them: generation and trace apart."""
    return one._replace(generation=0, trace_until=0) == other._replace(generation=0, trace_until=0)


def default_budget(tcp_mem: str, page_size: int) -> int:
    """Bytes: 256 MiB, or half of the first figure of net.ipv4.tcp_mem if that is less.

    Past that figure the kernel's TCP as a whole leaves the state without memory pressure
    (tcp(7), tcp_mem), so redirected bytes must stay well under it.

    :param tcp_mem: str, text of /proc/sys/net/ipv4/tcp_mem (pages).
    :param page_size: int, bytes.
    """
    try:
        pages = int(tcp_mem.split()[0])
    except (IndexError, ValueError) as error:
        raise LayoutError(f"net.ipv4.tcp_mem is not three numbers: {tcp_mem!r}") from error
    return max(MIN_BUDGET, min(DEFAULT_BUDGET, pages * page_size // 2))
