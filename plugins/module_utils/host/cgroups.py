# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups version 2: find them, identify them, create and remove this collection's own.

Controllers (``cgroup.subtree_control``) are never touched: programs attach to a cgroup without any.
"""

from __future__ import annotations

import contextlib
import os
from typing import List, Optional, Sequence, Set

from ..errors import SockredirError
from .mounts import CGROUP2, Mount, cgroup2, holding

#: The child of an accelerated cgroup for processes that it cannot take itself.
LEAF = "sockredirctl"
#: How often to try again what a process beside this one undoes.
_ATTEMPTS = 100


def resolve(path: str, mounts: Sequence[Mount]) -> str:
    """The absolute path of a cgroup, which need not exist.

    :param path: str, absolute, or relative to the cgroup2 mount; ``/`` is the root cgroup.
    :raises SockredirError: no cgroup2 is mounted, or the path lies on another filesystem.
    """
    root = cgroup2(mounts)
    if root is None:
        raise SockredirError(
            f"cgroup {path}: no cgroup2 filesystem is mounted (cgroup v1 cannot hold these programs)",
            "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    if path == "/":
        return root.point
    full = os.path.realpath(os.path.join(root.point, path))
    mount = holding(full, mounts)
    if mount is None or mount.fstype != CGROUP2:
        kind = mount.fstype if mount else "nothing known"
        raise SockredirError(
            f"cgroup {path}: {full} is on {kind}, not on cgroup2",
            f"name a cgroup under {root.point}, or relative to it",
        )
    if os.path.exists(full) and not os.path.isdir(full):
        raise SockredirError(f"cgroup {path}: {full} is a file", "name the cgroup's directory")
    return full


def relative(path: str, mounts: Sequence[Mount]) -> str:
    """A cgroup relative to the cgroup2 mount; ``/`` is the root.

    :raises SockredirError: see :func:`resolve`.
    """
    root = resolve("/", mounts)
    return resolve(path, mounts)[len(root.rstrip("/")) :] or "/"


def cgroup_id(path: str) -> Optional[int]:
    """The kernel's id of a cgroup, never used twice until reboot; None if there is no such cgroup.

    It is the inode number from Linux 5.5 on (40430452fd5d), and what link and program queries report.
    """
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def members(path: str) -> Set[int]:
    """Ids of the processes in a cgroup and below it; of none if it does not exist."""
    found: Set[int] = set()
    for directory, _names, _files in os.walk(path):
        with contextlib.suppress(OSError), open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as lines:
            found |= set(map(int, lines))
    return found


def missing(path: str) -> List[str]:
    """The directories that are to be made for a cgroup to exist, outermost first."""
    absent: List[str] = []
    while not os.path.isdir(path):
        absent.insert(0, path)
        path = os.path.dirname(path)
    return absent


def create(path: str) -> List[str]:
    """Make a cgroup and what is missing of its parents; all or nothing.

    :returns: the directories made, outermost first.
    :raises SockredirError: the kernel refuses (limits of ``cgroup.max.*``, a threaded domain, no rights).
    """
    made: List[str] = []
    for attempt in range(_ATTEMPTS):
        absent = missing(path)
        if not absent:
            break
        try:
            os.mkdir(absent[0], 0o755)
            made.append(absent[0])
        except OSError as error:
            # Another process, mostly systemd, may have made it or removed the one above it meanwhile.
            if isinstance(error, (FileExistsError, FileNotFoundError)) and attempt < _ATTEMPTS - 1:
                continue
            remove(made)
            raise SockredirError(
                f"cgroup {absent[0]} cannot be created: {error.strerror}",
                "check cgroup.max.depth and cgroup.max.descendants above it, and run as root",
            ) from error
    return [directory for directory in dict.fromkeys(made) if os.path.isdir(directory)]


def removable(paths: Sequence[str]) -> List[str]:
    """Which of our cgroups would go, innermost first: those that exist and hold nothing but one another."""
    gone: List[str] = []
    for path in sorted(set(paths), key=lambda name: (-name.count("/"), name)):
        try:
            if _empty_but_for(path, gone):
                gone.append(path)
        except OSError:
            continue
    return gone


def _empty_but_for(path: str, gone: Sequence[str]) -> bool:
    with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as processes:
        if processes.read(1):
            return False
    with os.scandir(path) as entries:
        return all(entry.path in gone for entry in entries if entry.is_dir(follow_symlinks=False))


def remove(paths: Sequence[str]) -> List[str]:
    """Remove those of the given cgroups that are empty; others stay as they are.

    :param paths: cgroups that we made.
    :returns: the directories removed, innermost first.
    """
    removed: List[str] = []
    for path in removable(paths):
        try:
            os.rmdir(path)
        except OSError:  # a process moved in meanwhile: then it is in use, and stays
            continue
        removed.append(path)
    return removed
