# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps mount a bpffs, create a directory on it, pin something there, or remove it. Pure."""

from __future__ import annotations

import os
from typing import Any, Dict, NamedTuple, Optional, Tuple

from ...change.step import Plan, Step
from ...errors import SockredirError

MOUNTED, DIRECTORY, PRESENT, ABSENT = "mounted", "directory", "present", "absent"
BPFFS = "bpf"
PINS = ("program", "map", "link")
#: Modes of what we make, unless asked for others: bpffs itself, directories, pins.
DIRECTORY_MODE, PIN_MODE = 0o700, 0o600
MOUNT_POINT_MODE = 0o755


class Access(NamedTuple):
    """Owner, group and mode; None if it does not matter."""

    uid: Optional[int] = None
    gid: Optional[int] = None
    mode: Optional[int] = None

    def over(self, other: Access) -> Access:
        """This, with the other's value if this has none."""
        return Access(*(mine if mine is not None else theirs for mine, theirs in zip(self, other)))

    def shown(self) -> Dict[str, Any]:
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return {**given, "mode": f"{self.mode:04o}"} if self.mode is not None else given


class AccessChange(NamedTuple):
    """What changes of a path's access, each with nothing else in it."""

    before: Access
    after: Access


class Source(NamedTuple):
    """:ivar source: what to pin, an id or a pin.
    :ivar access: what the new pin gets.
    """

    source: Optional[str]
    access: Access


class Wanted(NamedTuple):
    """:ivar state: ``mounted``, ``directory``, ``present`` or ``absent``.
    :ivar kind: ``program``, ``map`` or ``link``; None: whatever is pinned.
    :ivar source: what to pin, as the operator named it: an id or a pin.
    :ivar check: only show what would happen; what an earlier task would have made may be missing.
    """

    path: str
    state: str
    kind: Optional[str] = None
    source: Optional[str] = None
    access: Access = Access()
    check: bool = False


class Place(NamedTuple):
    """What is at a path.

    :ivar kind: ``directory``, ``program``, ``map``, ``link``, ``symlink``, or ``file``, which is not a pin. (Some
        put ``maps.debug`` and ``progs.debug`` into every bpffs; nobody can open or remove them.)
    :ivar number: the kernel's id of what is pinned.
    :ivar entries: names in a directory.
    """

    kind: str
    number: Optional[int] = None
    access: Access = Access()
    entries: Tuple[str, ...] = ()


class Observed(NamedTuple):
    """:ivar fstype: type of the filesystem that the path is on; :ivar mount_point: and where that is mounted.
    :ivar mountable: whether the kernel has bpffs.
    :ivar missing: directories above the path, and for a directory itself, that do not exist; outermost first.
    :ivar source_number: id of what is to be pinned; None: it is not there.
    """

    fstype: Optional[str] = BPFFS
    mount_point: str = "/sys/fs/bpf"
    mountable: bool = True
    here: Optional[Place] = None
    missing: Tuple[str, ...] = ()
    source_kind: Optional[str] = None
    source_number: Optional[int] = None


def plan(wanted: Wanted, observed: Observed) -> Plan:
    """The steps from what is there to what is wanted; empty if that is the same.

    :raises SockredirError: it cannot be had, or would hide or remove something that is not a pin.
    """
    return {MOUNTED: _mounted, DIRECTORY: _directory, PRESENT: _present, ABSENT: _absent}[wanted.state](
        wanted, observed
    )


def _mounted(wanted: Wanted, observed: Observed) -> Plan:
    if observed.fstype == BPFFS:
        # Mounting again would hide everybody's pins under an empty bpffs.
        is_root = observed.mount_point == wanted.path
        return _access_steps(wanted, observed.here) if is_root and observed.here else []
    if not observed.mountable:
        raise SockredirError(
            f"path {wanted.path}: this kernel has no bpffs", "boot a kernel built with CONFIG_BPF_SYSCALL"
        )
    if observed.here and observed.here.kind != DIRECTORY:
        raise SockredirError(f"path {wanted.path} is a file", "name a directory, such as /sys/fs/bpf")
    if observed.here and observed.here.entries:
        raise SockredirError(
            f"path {wanted.path}: a bpffs mounted there would hide {len(observed.here.entries)} entries, such as"
            f" {observed.here.entries[0]}",
            "name an empty directory, such as /sys/fs/bpf",
        )
    steps = [
        Step("make_directory", path, None, "directory", Access(mode=MOUNT_POINT_MODE)) for path in observed.missing
    ]
    access = wanted.access.over(Access(mode=DIRECTORY_MODE))
    return steps + [Step("mount", wanted.path, None, {"type": "bpffs", **access.shown()}, access)]


def _directory(wanted: Wanted, observed: Observed) -> Plan:
    _need_bpffs(wanted, observed)
    _refuse_dots(wanted, observed)
    if observed.here and observed.here.kind != DIRECTORY:
        raise SockredirError(
            f"path {wanted.path} is a {observed.here.kind}, not a directory", "remove it or choose another"
        )
    if observed.here:
        return _access_steps(wanted, observed.here)
    steps = [Step("make_directory", path, None, "directory", Access(mode=DIRECTORY_MODE)) for path in observed.missing]
    made = Place(DIRECTORY, access=Access(mode=DIRECTORY_MODE))
    return steps + _access_steps(wanted, made)


def _present(wanted: Wanted, observed: Observed) -> Plan:
    _need_bpffs(wanted, observed)
    _refuse_dots(wanted, observed)
    _refuse_source(wanted, observed)
    kind = observed.source_kind or wanted.kind
    here = observed.here
    if here and here.kind not in PINS:
        raise SockredirError(f"path {wanted.path} is a {here.kind}, not a pin", "remove it or choose another path")
    if here and (here.kind, here.number) == (kind, observed.source_number):
        return _access_steps(wanted, here)
    # A pin made again keeps the access that the one before it had.
    access = wanted.access.over(here.access if here else Access(mode=PIN_MODE))
    before = {"kind": here.kind, "id": here.number} if here else None
    after = {"kind": kind, "id": observed.source_number, **access.shown()}
    return [Step("pin", wanted.path, before, after, Source(wanted.source, access))]


def _refuse_source(wanted: Wanted, observed: Observed) -> None:
    if observed.source_number is None:
        if not wanted.check:
            raise SockredirError(f"source: there is no {wanted.kind or 'object'} {wanted.source}", "load it first")
    elif observed.source_kind not in PINS:
        raise SockredirError(f"source: {wanted.source} is a {observed.source_kind}, not a pin", "name a pin, or an id")
    elif wanted.kind and observed.source_kind != wanted.kind:
        raise SockredirError(
            f"source: {wanted.source} is a {observed.source_kind}, not a {wanted.kind}", "correct kind or source"
        )
    parents = [path for path in observed.missing if path != wanted.path]
    if parents and not wanted.check:
        raise SockredirError(
            f"path {wanted.path}: {parents[-1]} does not exist", "create it first, with state: directory"
        )


def _absent(wanted: Wanted, observed: Observed) -> Plan:
    here = observed.here
    if here is None:
        return []
    _need_bpffs(wanted, observed)
    if observed.mount_point == wanted.path:
        raise SockredirError(f"path {wanted.path} is the mount point of a bpffs", "name a path below it")
    if here.kind == DIRECTORY:
        if here.entries:
            raise SockredirError(
                f"path {wanted.path} is a directory that holds {', '.join(here.entries[:5])}"
                f"{' and more' if here.entries[5:] else ''}",
                "remove those first",
            )
        return [Step("remove_directory", wanted.path, "directory", None, here.access)]
    if here.kind == "file":
        raise SockredirError(f"path {wanted.path} is not a pin: the kernel itself keeps it there", "leave it alone")
    if wanted.kind and here.kind != wanted.kind:
        raise SockredirError(
            f"path {wanted.path} is a pin of a {here.kind}, not of a {wanted.kind}", "correct kind or path"
        )
    return [Step("unpin", wanted.path, {"kind": here.kind, "id": here.number}, None, here.access)]


def _access_steps(wanted: Wanted, here: Place) -> Plan:
    new = wanted.access.over(here.access)
    if new == here.access:
        return []
    changed = Access(*(value if value != old else None for value, old in zip(new, here.access)))
    old = Access(*(value if now is not None else None for value, now in zip(here.access, changed)))
    return [Step("access", wanted.path, old.shown(), changed.shown(), AccessChange(old, changed))]


def _need_bpffs(wanted: Wanted, observed: Observed) -> None:
    if observed.fstype != BPFFS and not wanted.check:
        raise SockredirError(
            f"path {wanted.path} is on {observed.fstype or 'nothing known'} ({observed.mount_point}), not on a bpffs",
            "mount one first, with state: mounted, or name a path below /sys/fs/bpf",
        )


def _refuse_dots(wanted: Wanted, observed: Observed) -> None:
    if any("." in os.path.basename(path) for path in (wanted.path,) + observed.missing):
        raise SockredirError(f"path {wanted.path}: a bpffs allows no dot in a name", "choose another name")
