# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches TCP for a while: the programs of ``bpf/learn.bpf.c``, held by this process alone.

Nothing is pinned. Programs, maps and attachments are gone when the descriptors are, so also when the process is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import time
from typing import Callable, Dict, Iterator, NamedTuple, Optional

from ..compile import compilers
from ..errors import SockredirError
from ..kernel import btf, libbpf
from . import connections, layout

_NAME = "learn"
_MACHINES = ("x86_64", "aarch64")
_POLL_SECONDS = 0.1
_SCOPE_ONLY = "in_scope_only"
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Seen(NamedTuple):
    """What a watch has seen.

    :ivar counts: by whose they are.
    :ivar living: how many of the connections counted at a server's end are still there, by port.
    :ivar seconds: float, how long it took.
    :ivar lost: int, sockets that there was no room for.
    """

    counts: Dict[layout.Key, layout.Counts]
    living: Dict[int, int]
    seconds: float
    lost: int


def build(source: str) -> bytes:
    """The object: the file itself if it is one, else what clang makes of it.

    :raises SockredirError: there is no such file, no clang, or it does not compile.
    """
    if source.endswith(".o"):
        return compilers.read(source)
    return compilers.compile_clang(source, {}).data


def watch(data: bytes, seconds: float, cgroup: Optional[str]) -> Seen:
    """Watch for so long, or until a signal asks to end.

    :param data: bytes, the object.
    :param cgroup: str, directory of the cgroup whose programs to watch; None for all of the host.
    :raises SockredirError: the kernel does not take the programs.
    """
    if os.uname().machine not in _MACHINES:
        raise SockredirError(
            f"learn does not know the system calls of {os.uname().machine}", f"it knows those of {', '.join(_MACHINES)}"
        )
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(libbpf.Object(data, _NAME))
        _load(held, cgroup)
        _note_listeners(held)
        for program in held.programs():
            stack.enter_context(_attached(program))
        begin = time.monotonic()
        _wait(seconds)
        seconds = time.monotonic() - begin
        return _seen(held, seconds)


def _load(held: libbpf.Object, cgroup: Optional[str]) -> None:
    if cgroup is not None:
        _set(held, _SCOPE_ONLY, 1)
    try:
        held.load()
    except libbpf.BpfError as error:
        raise SockredirError(
            f"the kernel does not take the programs that learn: {error.message}",
            error.cure or "learning needs Linux 6.3 or newer, with BTF",
            error.detail,
        ) from error
    if cgroup is not None:
        _set_scope(held, cgroup)


def _set(held: libbpf.Object, name: str, value: int) -> None:
    """Set a ``const volatile`` variable."""
    rodata = next(one for one in held.maps() if one.internal and one.name.endswith(".rodata"))
    types = btf.Btf(held.btf())
    variable = types.variables(".rodata")[name]
    content = bytearray(rodata.initial_value())
    content[variable.offset : variable.offset + variable.size] = types.encode(variable.type_id, value)
    rodata.set_initial_value(bytes(content))


def _map(held: libbpf.Object, name: str) -> libbpf.Map:
    found = next(one for one in held.maps() if one.name == name)
    return libbpf.Map(libbpf.Fd(os.dup(found.fileno())))


def _set_scope(held: libbpf.Object, cgroup: str) -> None:
    number = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _map(held, "scope") as scope:
            scope.update(bytes(4), struct.pack("=I", number))
    finally:
        os.close(number)


def _note_listeners(held: libbpf.Object) -> None:
    with _map(held, "listened") as listened:
        for port in connections.listening():
            listened.update(struct.pack("=H", port), b"\1")


def _attached(program: libbpf.ObjectProgram) -> libbpf.Fd:
    try:
        return libbpf.open_tracepoint(program.fileno())
    except libbpf.BpfError as error:
        raise SockredirError(f"{program.section}: {error.message}", error.cure, error.detail) from error


def _wait(seconds: float) -> None:
    """Sleep, or less where a signal asks to end."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    try:
        signal.sigtimedwait(_ENDINGS, seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _seen(held: libbpf.Object, seconds: float) -> Seen:
    """Connections that have ended, and those that live on."""
    with _map(held, "totals") as totals, _map(held, "sockets") as sockets:
        counts = {layout.decode_key(key): layout.decode_counts(raw) for key, raw in totals.items()}
        records = [layout.decode_socket(raw) for _address, raw in sockets.items()]
    living: Dict[int, int] = {}
    now = time.monotonic_ns()
    for record in records:
        if record.watched:
            more = record.counts._replace(nanoseconds=now - record.opened_ns)
            counts[record.key] = counts.get(record.key, layout.NOTHING).plus(more)
            living[record.key.port] = living.get(record.key.port, 0) + record.key.server
    return Seen(counts, living, seconds, _lost(held))


def _lost(held: libbpf.Object) -> int:
    with _map(held, "lost") as lost:
        return sum(int.from_bytes(value, "little") for _key, value in lost.items())


@contextlib.contextmanager
def alone(directory: str, wait_seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that goes with the process and leaves nothing: ``flock`` on a directory that is there anyway.

    :param directory: str, where cgroup2 is mounted.
    :param say: told once that another one runs.
    :raises SockredirError: it still runs after so many seconds.
    """
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline, told = time.monotonic() + wait_seconds, False
    try:
        while not _lock(number):
            if time.monotonic() >= deadline:
                raise SockredirError(
                    f"another learn has run on this host for the last {wait_seconds:g} s",
                    "wait for it to end, or end it",
                )
            if not told:
                say(f"another learn runs on this host; waiting for it, at most {wait_seconds:g} s")
            told = True
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(number)


def _lock(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
