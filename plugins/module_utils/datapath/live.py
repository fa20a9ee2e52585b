# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data path's maps as they are now on this host, found by their pins."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

from ..errors import SockredirError
from ..kernel import libbpf
from . import layout, settings_value
from .settings import Found

_FIRST = struct.pack("=I", 0)
_TRACE_UNTIL = struct.Struct("=Q")
_TRACE_AT = struct.calcsize("=IIIIQ")
_WAIT_SECONDS = 10.0


class OtherLayout(SockredirError):
    """A map was made by a version of the programs whose layout this one does not know."""


def is_pinned(pin_dir: str, name: str) -> bool:
    """Whether a pin has this name."""
    return os.path.lexists(os.path.join(pin_dir, name))


def open_map(pin_dir: str, name: str) -> Optional[libbpf.Map]:
    """A map by its pin; None if nothing is pinned there.

    :raises SockredirError: something else than a map is, or the caller is not root.
    """
    if not is_pinned(pin_dir, name):
        return None
    try:
        return libbpf.Map.open_pin(os.path.join(pin_dir, name))
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def read_settings(pin_dir: str) -> Optional[Found]:
    """The settings that the programs read; None if there is no such map.

    :raises SockredirError: the map is of another layout, or cannot be read.
    """
    found = open_map(pin_dir, "settings")
    if found is None:
        return None
    with found as settings:
        return _decode(_value(settings))


def _decode(raw: bytes) -> Found:
    try:
        settings = settings_value.decode_settings(raw)
    except layout.LayoutError as error:
        return Found(raw, None, error.message)
    # A change takes milliseconds, so an odd number means that its writer was killed.
    return Found(raw, settings, "settings: a change was not finished" if settings.generation & 1 else "")


def _value(settings: libbpf.Map) -> bytes:
    if settings.info.value_size != layout.SETTINGS_SIZE:
        raise OtherLayout(
            f"the settings map has values of {settings.info.value_size} bytes, this version {layout.SETTINGS_SIZE}",
            "enable again with this version of the collection",
        )
    return settings.lookup(_FIRST) or bytes(layout.SETTINGS_SIZE)


def write_settings(pin_dir: str, state_dir: str, wanted: settings_value.Settings) -> bytes:
    """Write other settings, in an order in which no socket sees half of them; a running trace goes on.

    :returns: what the map held before.
    :raises SockredirError: there is no such map, it is of another layout, or the settings are impossible.
    """
    with _settings_for_writing(pin_dir, state_dir) as settings:
        before = _value(settings)
        trace_until = _TRACE_UNTIL.unpack_from(before, _TRACE_AT)[0]
        for value in settings_value.change_steps(before, wanted._replace(trace_until=trace_until)):
            settings.update(_FIRST, value)
        return before


def restore_settings(pin_dir: str, state_dir: str, raw: bytes) -> None:
    """Put back what :func:`write_settings` returned."""
    with _settings_for_writing(pin_dir, state_dir) as settings:
        settings.update(_FIRST, raw)


def trace_until(pin_dir: str, state_dir: str, moment: int) -> int:
    """Have each new socket written to the ``events`` ring until a moment; a later one already asked for stays.

    :param moment: int, CLOCK_MONOTONIC in nanoseconds; 0 stops it for everybody.
    :returns: the id of the settings map.
    :raises SockredirError: there is no such map.
    """
    with _settings_for_writing(pin_dir, state_dir) as settings:
        raw = bytearray(_value(settings))
        if moment == 0 or moment > _TRACE_UNTIL.unpack_from(raw, _TRACE_AT)[0]:
            _TRACE_UNTIL.pack_into(raw, _TRACE_AT, moment)
            settings.update(_FIRST, bytes(raw))
        return settings.info.id


@contextlib.contextmanager
def _settings_for_writing(pin_dir: str, state_dir: str) -> Iterator[libbpf.Map]:
    """The settings map, with other writers locked out.

    It has a lock of its own, held only briefly: a trace goes on while a long change holds the host's lock.
    """
    found = open_map(pin_dir, "settings")
    if found is None:
        raise SockredirError(f"there is no settings map in {pin_dir}", "enable first, or: sockredirctl restore")
    with found as settings, _exclusive(os.path.join(state_dir, "settings.lock")):
        yield settings


@contextlib.contextmanager
def _exclusive(path: str) -> Iterator[None]:
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SockredirError(f"cannot open {path}: {error.strerror}") from error
    try:
        _lock(number, path)
        yield
    finally:
        os.close(number)


def _lock(number: int, path: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise SockredirError(f"another process has held {path} for {_WAIT_SECONDS:g} s", "end it") from None
            time.sleep(0.002)


def counters(pin_dir: str) -> Optional[Dict[str, layout.Count]]:
    """Events and bytes by reason since the map was made; None if there is no such map."""
    found = open_map(pin_dir, "counters")
    if found is None:
        return None
    with found as table:
        counts = [table.lookup(struct.pack("=I", index)) for index in range(table.info.max_entries)]
    return layout.name_counters(layout.sum_counter(raw) for raw in counts if raw is not None)


def flows(pin_dir: str, limit: Optional[int] = None) -> Optional[List[Tuple[layout.Key, layout.Flow]]]:
    """Live connections, the oldest first; None if there is no such map.

    :param limit: int, how many to read at most; they come in no certain order then.
    """
    found = open_map(pin_dir, "flows")
    if found is None:
        return None
    records = []
    with found as table:
        for key, value in table.items():
            records.append((layout.decode_key(key), layout.decode_flow(value)))
            if limit is not None and len(records) >= limit:
                break
    return sorted(records, key=lambda record: (record[1].opened, record[0]))


def used(pin_dir: str) -> Optional[int]:
    """Bytes of unread redirected data charged to the whole host; None if there is no such map."""
    found = open_map(pin_dir, "pressure")
    if found is None:
        return None
    with found as pressure:
        raw = pressure.lookup(_FIRST)
    return layout.decode_pressure(raw).used if raw else 0


def ports(pin_dir: str) -> Optional[Dict[int, layout.Port]]:
    """What has been learned of each server port that had connections; None if there is no such map."""
    found = open_map(pin_dir, "ports")
    if found is None:
        return None
    with found as table:
        return {struct.unpack("=I", key)[0]: layout.decode_port(value) for key, value in table.items()}


def forget_ports(pin_dir: str, numbers: Iterable[int]) -> None:
    """Remove what has been learned of some server ports; their next connections begin with nothing again."""
    found = open_map(pin_dir, "ports")
    if found is None:
        return
    with found as table:
        for number in numbers:
            table.delete(struct.pack("=I", number))
