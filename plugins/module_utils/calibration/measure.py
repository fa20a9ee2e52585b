# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare plain TCP with redirection on this host, by a second copy of the object that is to be used here.

It takes two cgroups of its own, one with the programs and one without; nothing is pinned. Afterwards all of it is
removed; a run that is killed leaves an empty cgroup, which the next run removes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple

from ..datapath import budget, layout, settings_value
from ..errors import SockredirError
from ..host import cgroups, mounts
from ..kernel import libbpf
from ..kernel.loader import Loadable
from .decision import SIZES, Measured, Turn
from .pair import Pair, Transfer

#: Seconds for streams: what does not fit is left out.
MOST = 3.6
PREFIX = "sockredir-calibration-"
_PLAIN, _REDIRECTED = "plain", "redirected"
_TURN = 0.018  # seconds
_ROUNDS = 9
_REQUEST = 64  # bytes
_REQUESTS = 900
_MANY = 8  # connections
_MANY_REQUESTS = 450  # on each
_ASKING = 0.4  # seconds, more or less, for each of these
_WARM = 512 << 10  # bytes: TCP's windows have grown by then
_ON_MAP = {"receive": libbpf.ATTACH_SK_SKB_STREAM_VERDICT, "verdict": libbpf.ATTACH_SK_MSG_VERDICT}
_NEEDED = ("sockops", "verdict", "peers", "settings")


class Pairs(NamedTuple):
    """A pair of processes of each kind."""

    plain: Pair
    redirected: Pair


def measure(data: bytes, config: Mapping[str, Any]) -> Measured:
    """Compare; takes some seconds.

    :param data: bytes, the object file.
    :param config: its variables, by name.
    :raises SockredirError: the object cannot be loaded here, or there is nothing to compare.
    """
    try:
        # Loaded last: the processes are to hold nothing that keeps programs loaded.
        with _cgroups() as places, _pairs(places) as pairs, _loaded(data, config, places[_REDIRECTED]):
            return _compare(pairs)
    except OSError as error:
        raise SockredirError(f"plain TCP and redirection cannot be compared: {error}") from error


@contextlib.contextmanager
def _cgroups() -> Iterator[Dict[str, str]]:
    root = cgroups.resolve("/", mounts.read())
    _remove_left(root)
    base = os.path.join(root, f"{PREFIX}{os.getpid()}")
    places = {kind: os.path.join(base, kind) for kind in (_PLAIN, _REDIRECTED)}
    try:
        for path in places.values():
            cgroups.create(path)
        yield places
    finally:
        _remove([*places.values(), base])


def _remove(paths: List[str]) -> None:
    # The kernel lets go of an ended process a moment after its parent knows.
    until = time.monotonic() + 2
    while cgroups.missing(paths[-1]) == [] and time.monotonic() < until:
        if not cgroups.remove(paths):
            time.sleep(0.01)


def _remove_left(root: str) -> None:
    """What runs that were killed have left."""
    for name in os.listdir(root):
        if name.startswith(PREFIX) and not os.path.exists(f"/proc/{name[len(PREFIX) :]}"):
            base = os.path.join(root, name)
            cgroups.remove([base, *(os.path.join(base, kind) for kind in (_PLAIN, _REDIRECTED))])


@contextlib.contextmanager
def _pairs(places: Mapping[str, str]) -> Iterator[Pairs]:
    with Pair(places[_PLAIN]) as plain, Pair(places[_REDIRECTED]) as redirected:
        yield Pairs(plain, redirected)


@contextlib.contextmanager
def _loaded(data: bytes, config: Mapping[str, Any], cgroup: str) -> Iterator[None]:
    entries = {"flows": 64, "peers": 128}
    with Loadable(data, "calibration", "the object", dict(config), entries) as found:
        lacking = [name for name in _NEEDED if name not in found.programs and name not in found.maps]
        if lacking:
            raise SockredirError(f"the object has no {', '.join(lacking)}: there is nothing to compare")
        found.load({})
        _redirect_all(found)
        for name, kind in _ON_MAP.items():
            if name in found.programs:
                libbpf.attach(found.program(name).fileno(), found.map("peers").fileno(), kind)
        with _opened(cgroup) as place:
            link = libbpf.create_link(found.program("sockops").fileno(), place, libbpf.ATTACH_CGROUP_SOCK_OPS)
        with link:
            yield


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


def _redirect_all(found: Loadable) -> None:
    """Write settings by which everything is redirected, whatever its size."""
    chosen = settings_value.Settings(budget=budget.default_budget(), demote_below=0)
    with libbpf.Map(libbpf.Fd(os.dup(found.map("settings").fileno()))) as settings:
        for value in settings_value.change_steps(bytes(layout.SETTINGS_SIZE), chosen):
            settings.update(struct.pack("=I", 0), value)


def _compare(pairs: Pairs) -> Measured:
    requests, many = _requests(pairs, 1, _REQUESTS), _requests(pairs, _MANY, _MANY_REQUESTS)
    until = time.monotonic() + MOST
    counts = {size: _count(pairs, size) for size in SIZES if time.monotonic() < until}
    streams: Dict[int, List[Turn]] = {size: [] for size in counts}
    redirected = 0
    # Each round goes through all sizes, so that a short disturbance affects one turn of each size, not all of one.
    for number in range(_ROUNDS):
        for size, count in counts.items():
            if time.monotonic() < until:
                done = _transfers(pairs, size, count, number % 2 == 1)
                _need_plain(done[_PLAIN], size * count)
                redirected += size * count - done[_REDIRECTED].by_tcp
                streams[size].append(Turn(*(size * count / done[kind].seconds for kind in Pairs._fields)))
    if not redirected:
        raise SockredirError("nothing was redirected in a test transfer, so there is nothing to compare")
    return Measured(streams, requests, many)


def _requests(pairs: Pairs, connections: int, count: int) -> Dict[str, float]:
    until = time.monotonic() + _ASKING
    took: Dict[str, List[float]] = {kind: [] for kind in Pairs._fields}
    for number in range(_ROUNDS):
        if number and time.monotonic() > until:
            break
        for kind, pair in zip(Pairs._fields, pairs):
            took[kind].append(pair.requests(_REQUEST, count // _ROUNDS, connections).request_us)
    # The lower quartile: a disturbance makes a round longer, never shorter.
    return {kind: round(sorted(each)[len(each) // 4], 1) for kind, each in took.items()}


def _count(pairs: Pairs, size: int) -> int:
    """How many messages of a size make a turn; both connections are warm afterwards."""
    few = max(_WARM // size, 1)
    for pair in pairs:
        pair.stream(size, few)
    took = [pair.stream(size, few).seconds for pair in pairs]
    return max(int(few * _TURN / max(took)), 1)


def _transfers(pairs: Pairs, size: int, count: int, swapped: bool) -> Dict[str, Transfer]:
    kinds = list(zip(Pairs._fields, pairs))
    return {kind: pair.stream(size, count) for kind, pair in (reversed(kinds) if swapped else kinds)}


def _need_plain(done: Transfer, sent: int) -> None:
    if done.by_tcp < sent:
        raise SockredirError("there is no plain TCP on this host to compare with, because other programs redirect it")
