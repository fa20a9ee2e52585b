# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The value of the map ``settings``, ``struct sockredir_settings`` of ``bpf/sockredir.h``, checked both ways."""

from __future__ import annotations

import enum
import ipaddress
import struct
from typing import NamedTuple

from .layout import (
    CIDR,
    CROSS_NETNS,
    LAYOUT,
    MAX_CIDRS,
    MAX_PORTS,
    PORTS,
    SETTINGS_HEAD,
    SETTINGS_SIZE,
    LayoutError,
    decode_address,
    encode_address,
    exactly,
)

DEFAULT_BUDGET = 256 << 20
DEFAULT_DEMOTE_BELOW = 30000
DEFAULT_DEMOTE_AFTER = 32
DEFAULT_LEAVE_AFTER = 32
MAX_LEAVE_AFTER = 64
MIN_BUDGET = 64 << 10
"""Bytes. Below it a single message of common size could not be redirected."""


class Mode(enum.IntEnum):
    """What the programs do; ``settings.mode``."""

    UNSET = 0
    ENFORCE = 1
    OBSERVE = 2
    DRAIN = 3


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
    exactly(raw, SETTINGS_SIZE, "the settings value")
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
    exactly(current, SETTINGS_SIZE, "the settings value")
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
