# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe a path on a bpffs, and what should be pinned there. Reads only."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, List, Optional, Tuple

from ...errors import SockredirError
from ...host import facts, mounts
from .plan import DIRECTORY, PRESENT, Access, Observed, Place, Wanted

if TYPE_CHECKING:
    from ...kernel import libbpf


def real_path(path: str) -> str:
    """The path with symlinks above its last part resolved; the last part may be missing, or be a symlink itself."""
    path = os.path.normpath(os.path.abspath(path))
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) if path != "/" else path


def observe(wanted: Wanted) -> Observed:
    """What is at the path, and what is to be pinned there; reads only.

    :raises SockredirError: a pin cannot be opened.
    """
    mount = mounts.holding(wanted.path, mounts.read())
    on_bpffs = mount is not None and mount.fstype == mounts.BPFFS
    kind, number = _source(wanted)
    return Observed(
        fstype=mount.fstype if mount else None,
        mount_point=mount.point if mount else "",
        mountable=facts.bpffs_known(),
        here=place(wanted.path, on_bpffs),
        missing=tuple(_missing(wanted.path)),
        source_kind=kind,
        source_number=number,
    )


def _missing(path: str) -> List[str]:
    absent: List[str] = []
    while not os.path.lexists(path):
        absent.insert(0, path)
        path = os.path.dirname(path)
    return absent


def place(path: str, on_bpffs: bool) -> Optional[Place]:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        if on_bpffs and os.geteuid() == 0:  # a name with a dot: bpffs does not even look it up
            return None
        raise SockredirError(f"path {path} cannot be examined: {error.strerror}", "use become: true") from error
    access = Access(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    if stat.S_ISLNK(status.st_mode):
        return Place("symlink", access=access)
    if stat.S_ISDIR(status.st_mode):
        return Place(DIRECTORY, access=access, entries=tuple(sorted(os.listdir(path))))
    if not on_bpffs:
        return Place("file", access=access)
    from ...kernel import objects

    pin = objects.at(path)
    return Place(pin.kind, pin.id, access) if pin else Place("file", access=access)


def _source(wanted: Wanted) -> Tuple[Optional[str], Optional[int]]:
    """Kind and id of what is to be pinned."""
    source, kind = wanted.source, wanted.kind
    if wanted.state != PRESENT or source is None:
        return None, None
    from ...kernel import objects

    if not is_id(source):
        if os.path.lexists(source) and not mounts.bpffs_holding(source, mounts.read()):
            raise SockredirError(f"source: {source} is not a pin: it is not on a bpffs", "name a pin, or an id")
        pin = objects.at(source)
        return (pin.kind, pin.id) if pin else (None, None)
    if kind is None:
        raise SockredirError(
            f"source: {source} is an id, but its kind is not given", "set kind to program, map or link"
        )
    with contextlib.suppress(FileNotFoundError), by_id(kind, int(source)):
        return kind, int(source)
    return None, None


def is_id(source: str) -> bool:
    return source.isdigit()


def by_id(kind: str, number: int) -> libbpf.Fd:
    """:raises FileNotFoundError: there is no such object."""
    from ...kernel import libbpf

    opens = {"program": libbpf.program_by_id, "map": libbpf.map_by_id, "link": libbpf.link_by_id}
    try:
        return opens[kind](number)
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(number) from error
        raise
