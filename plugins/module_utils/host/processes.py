# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes: who holds a socket, and who may splice(2) from one. Reads /proc; what may not be read is left out."""

from __future__ import annotations

import ctypes
import os
import stat
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

#: Programs known to splice from sockets, at least when configured to; Go programs are told by their build note.
_SPLICERS = frozenset({"haproxy", "docker-proxy", "redsocks", "redsocks2", "realm"})
#: Type and owner of the note that Go's linker puts in the first page of a program.
_GO_NOTE = b"\x04\x00\x00\x00Go\x00\x00"
_PAGE = 4096
#: System calls, the same on every architecture.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438


class Process(NamedTuple):
    pid: int
    comm: str


def pids() -> Iterator[int]:
    """The processes there are, in no order."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    yield from (int(name) for name in names if name.isdigit())


def comm(pid: int) -> str:
    """The process's name, at most 15 characters; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as text:
            return text.read().rstrip("\n")
    except OSError:
        return ""


def socket_owners(wanted: Set[int]) -> Dict[int, Process]:
    """Who holds sockets: one process for each inode; of several that share it, the one with the lowest pid."""
    owners: Dict[int, Process] = {}
    for pid in sorted(pids()):
        for inode in _socket_inodes(pid):
            if inode in wanted and inode not in owners:
                owners[inode] = Process(pid, comm(pid))
        if len(owners) == len(wanted):
            break
    return owners


def socket_holders(among: Iterable[int]) -> Dict[int, Process]:
    """Of these processes, who holds a socket, by its inode."""
    return {inode: Process(pid, comm(pid)) for pid in sorted(set(among), reverse=True) for inode in _socket_inodes(pid)}


def _socket_inodes(pid: int) -> Iterator[int]:
    yield from (inode for _number, inode in _sockets(pid))


def _sockets(pid: int) -> Iterator[Tuple[int, int]]:
    """Descriptor and inode of each of a process's sockets."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(name), int(target[8:-1])


def socket_of(inode: int, among: Optional[Iterable[int]] = None) -> Optional[int]:
    """A descriptor of our own of somebody's socket; None if nobody has it any more.

    :param among: the processes that may have it; None: all.
    :raises OSError: the kernel does not give it (before Linux 5.6, or in a container that may not).
    """
    for pid in pids() if among is None else among:
        for number, found in _sockets(pid):
            if found == inode:
                return _copy_of(pid, number)
    return None


def _copy_of(pid: int, number: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    process = libc.syscall(_PIDFD_OPEN, pid, 0)
    try:
        copy = libc.syscall(_PIDFD_GETFD, process, number, 0)
        if copy < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return copy
    finally:
        if process >= 0:
            os.close(process)


def network_namespaces() -> Dict[int, str]:
    """Inode of each network namespace that a process is in, with a path that opens it."""
    found: Dict[int, str] = {}
    for pid in pids():
        path = f"/proc/{pid}/ns/net"
        try:
            found.setdefault(os.stat(path).st_ino, path)
        except OSError:
            continue
    return found


def splicers() -> Dict[str, int]:
    """Programs that may splice from a socket, with how many processes run each.

    A heuristic: some known names, and every program written in Go, whose ``io.Copy`` between TCP connections splices.
    """
    found: Dict[str, int] = {}
    seen: Dict[Tuple[int, int], bool] = {}
    for pid in pids():
        executable = _executable(pid)
        if executable is None:
            continue
        name = comm(pid)
        if executable not in seen:
            seen[executable] = _is_go(pid)
        if name and (name in _SPLICERS or seen[executable]):
            found[name] = found.get(name, 0) + 1
    return found


def _executable(pid: int) -> Optional[Tuple[int, int]]:
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:  # a kernel thread, gone, or not ours to see
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _is_go(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/exe", "rb") as program:
            return _GO_NOTE in program.read(_PAGE)
    except OSError:
        return False


def list_names(counts: Dict[str, int], most: int = 10) -> str:
    """``docker-proxy (4), haproxy`` and so on, at most so many names."""
    parts: List[str] = [f"{name} ({count})" if count > 1 else name for name, count in sorted(counts.items())]
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")
