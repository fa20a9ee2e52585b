# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is mounted where, read from mountinfo (proc(5)); nothing here changes a mount."""

from __future__ import annotations

import os
import re
from typing import List, NamedTuple, Optional, Sequence

BPFFS = "bpf"
CGROUP2 = "cgroup2"
MOUNTINFO = "/proc/self/mountinfo"


class Mount(NamedTuple):
    """One line of mountinfo, in mounting order."""

    mount_id: int
    parent_id: int
    root: str
    point: str
    options: str
    fstype: str
    source: str
    super_options: str


def read(path: str = MOUNTINFO) -> List[Mount]:
    """The mounts this process sees.

    :raises OSError: proc is not mounted.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        return parse(lines.read())


def parse(text: str) -> List[Mount]:
    """Mounts from the text of mountinfo; lines of an unknown form are skipped."""
    return [mount for mount in map(_parse_line, text.split("\n")) if mount]


def _parse_line(line: str) -> Optional[Mount]:
    left, dash, right = line.partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    if not dash or len(fields) < 6 or len(tail) < 2 or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    return Mount(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        root=unescape(fields[3]),
        point=unescape(fields[4]),
        options=fields[5],
        fstype=tail[0],
        source=unescape(tail[1]),
        super_options=tail[2] if len(tail) > 2 else "",
    )


def unescape(text: str) -> str:
    r"""Undo the kernel's octal escapes: ``\040`` blank, ``\011`` tab, ``\012`` newline, ``\134`` backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def holding(path: str, mounts: Sequence[Mount]) -> Optional[Mount]:
    """The mount that a path lies on, found as the kernel walks it.

    The longest mount point that is a prefix is not enough: it may be stacked over, or hidden under a mount made later
    on one of its parents. So each step goes only to mounts whose parent is the mount reached so far.

    :param path: str, absolute, without symlinks; need not exist.
    """
    here: Optional[Mount] = None
    for place in _prefixes(os.path.normpath(path)):
        while True:
            above = _mounted_on(here, place, mounts)
            if above is None:
                break
            here = above
    return here


def _mounted_on(here: Optional[Mount], place: str, mounts: Sequence[Mount]) -> Optional[Mount]:
    for mount in reversed(mounts):
        if mount.point == place and mount is not here and _is_child(mount, here, mounts):
            return mount
    return None


def _is_child(mount: Mount, parent: Optional[Mount], mounts: Sequence[Mount]) -> bool:
    if parent:
        return mount.parent_id == parent.mount_id
    # The root's parent is not listed, and under chroot nor is the mount that holds the root.
    return all(mount.parent_id != other.mount_id for other in mounts)


def _prefixes(path: str) -> List[str]:
    parts = [part for part in path.split("/") if part]
    return ["/"] + ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]


def visible(mount: Mount, mounts: Sequence[Mount]) -> bool:
    """Whether a mount can be reached by its path: not stacked over and not hidden."""
    return holding(mount.point, mounts) is mount


def of_type(fstype: str, mounts: Sequence[Mount]) -> List[Mount]:
    """All mounts of a filesystem type, reachable ones or not."""
    return [mount for mount in mounts if mount.fstype == fstype]


def bpffs_holding(path: str, mounts: Sequence[Mount]) -> Optional[Mount]:
    """The bpffs that a path lies on; None if it lies on another filesystem."""
    mount = holding(os.path.realpath(path), mounts)
    return mount if mount and mount.fstype == BPFFS else None


def cgroup2(mounts: Sequence[Mount]) -> Optional[Mount]:
    """The cgroup2 hierarchy to use: its root at the usual place, else wherever it is mounted.

    ``/sys/fs/cgroup`` (unified) and ``/sys/fs/cgroup/unified`` (hybrid, beside cgroup v1) are both usual.
    """
    found = [mount for mount in of_type(CGROUP2, mounts) if visible(mount, mounts)]
    return min(found, key=_cgroup2_preference, default=None)


def _cgroup2_preference(mount: Mount) -> tuple:
    return (mount.root != "/", not mount.point.startswith("/sys/fs/cgroup"), len(mount.point), mount.point)
