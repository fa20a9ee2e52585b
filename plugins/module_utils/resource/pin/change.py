# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bpffs mounted, directories and pins on it: observe, plan, apply."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from ...change.step import Plan, Step
from ...change.transaction import Handler, Undo, Watch, apply
from ...errors import SockredirError
from ...host import facts, mounts
from ...state import lock
from . import plan as planning
from .plan import DIRECTORY, DIRECTORY_MODE, PRESENT, Access, AccessChange, Observed, Place, Source, Wanted

if TYPE_CHECKING:
    from ...kernel import libbpf

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


class Result(NamedTuple):
    """:ivar notes: what an operator should know, one line each."""

    steps: Plan
    seen: Observed
    notes: List[str]


def ensure(
    wanted: Wanted, state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS
) -> Result:
    """Make it so, or with ``wanted.pretend`` say what that takes.

    :param state_dir: str, where the host's lock is.
    :param wait_seconds: float, how long to wait for another run on this host.
    :raises SockredirError: it cannot be had; the host is as it was.
    """
    if wanted.pretend:
        seen = observe(wanted)
        return Result(planning.plan(wanted, seen), seen, _notes(wanted, seen))
    with lock.hold(state_dir, wait_seconds):
        seen = observe(wanted)
        steps = planning.plan(wanted, seen)
        apply(steps, handlers(), watch)
        seen = observe(wanted) if steps else seen
    return Result(steps, seen, _notes(wanted, seen))


def _notes(wanted: Wanted, seen: Observed) -> List[str]:
    notes = []
    if wanted.state in (DIRECTORY, PRESENT) and seen.fstype != planning.BPFFS:
        notes.append(f"no bpffs is mounted for {wanted.path} yet; an earlier task has to mount it")
    if wanted.state == PRESENT and seen.source_number is None:
        notes.append(f"{wanted.source} is not there yet; an earlier task has to load it")
    mounted = mounts.read()
    stacked = [mount for mount in mounts.of_type(mounts.BPFFS, mounted) if mount.point == seen.mount_point]
    if len(stacked) > 1:
        notes.append(f"bpffs is mounted {len(stacked)} times at {seen.mount_point}: pins below the topmost are hidden")
    return notes


def real_path(path: str) -> str:
    """The path with symlinks above its last part resolved; the last part may be missing, or be a symlink itself."""
    path = os.path.normpath(os.path.abspath(path))
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) if path != "/" else path


# --- what an operator may write ---


def user_id(name: Optional[str]) -> Optional[int]:
    """The id of a user given by name or id.

    :raises SockredirError: there is no such user.
    """
    import pwd

    return _account(name, "owner", lambda text: pwd.getpwnam(text).pw_uid)


def group_id(name: Optional[str]) -> Optional[int]:
    """The id of a group given by name or id.

    :raises SockredirError: there is no such group.
    """
    import grp

    return _account(name, "group", lambda text: grp.getgrnam(text).gr_gid)


def _account(name: Optional[str], option: str, look_up: Callable[[str], int]) -> Optional[int]:
    if name is None or name.isdigit():
        return None if name is None else int(name)
    try:
        return look_up(name)
    except KeyError:
        raise SockredirError(f"{option}: {name} is unknown on this host", "create it, or give an id") from None


def permissions(mode: Union[int, str, None]) -> Optional[int]:
    """Permissions from octal text such as ``0700``, or from the number that YAML has made of it.

    :raises SockredirError: it is neither.
    """
    try:
        number = int(mode, 8) if isinstance(mode, str) else mode
    except ValueError:
        number = -1
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 0o7777):
        raise SockredirError(f"mode: {mode} is not a mode in octal", "write it as in mode: '0700'")
    return number


# --- observe ---


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
        here=_place(wanted.path, on_bpffs),
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


def _place(path: str, on_bpffs: bool) -> Optional[Place]:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        if on_bpffs and os.geteuid() == 0:  # a name with a dot: bpffs does not even look it up
            return None
        raise SockredirError(f"path {path} cannot be looked at: {error.strerror}", "use become: true") from error
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

    if not _is_id(source):
        if os.path.lexists(source) and not mounts.bpffs_holding(source, mounts.read()):
            raise SockredirError(f"source: {source} is not a pin: it is not on a bpffs", "name a pin, or an id")
        pin = objects.at(source)
        return (pin.kind, pin.id) if pin else (None, None)
    if kind is None:
        raise SockredirError(f"source: {source} is an id, but not of which kind", "set kind to program, map or link")
    with contextlib.suppress(FileNotFoundError), _by_id(kind, int(source)):
        return kind, int(source)
    return None, None


def _is_id(source: str) -> bool:
    return source.isdigit()


def _by_id(kind: str, number: int) -> libbpf.Fd:
    """:raises FileNotFoundError: there is no such object."""
    from ...kernel import libbpf

    opens = {"program": libbpf.program_by_id, "map": libbpf.map_by_id, "link": libbpf.link_by_id}
    try:
        return opens[kind](number)
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(number) from error
        raise


# --- apply ---


def handlers() -> Dict[str, Handler]:
    """The handler of each verb that :func:`.plan.plan` uses."""
    return {
        "mount": _mount,
        "make_directory": _make_directory,
        "remove_directory": _remove_directory,
        "access": _access,
        "pin": _pin,
        "unpin": _unpin,
    }


def _mount(step: Step) -> Undo:
    access = step.need(Access)
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(step.subject)
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if libc.mount(b"bpf", path, b"bpf", flags, f"mode={access.mode:o}".encode()) != 0:
        number = ctypes.get_errno()
        raise SockredirError(
            f"path {step.subject}: bpffs cannot be mounted: {os.strerror(number)}", "be root on the host itself"
        )
    with _undone_on_failure(lambda: libc.umount2(path, 0)):
        _change_access(step.subject, access)
    return lambda: libc.umount2(path, 0)


def _make_directory(step: Step) -> Undo:
    access = step.need(Access)
    os.mkdir(step.subject, DIRECTORY_MODE if access.mode is None else access.mode)
    _change_access(step.subject, access)  # whatever the umask
    return lambda: os.rmdir(step.subject)


def _remove_directory(step: Step) -> Undo:
    os.rmdir(step.subject)
    access = step.need(Access)

    def undo() -> None:
        os.mkdir(step.subject)
        _change_access(step.subject, access)

    return undo


def _access(step: Step) -> Undo:
    before, after = step.need(AccessChange)
    with _undone_on_failure(lambda: _change_access(step.subject, before)):
        _change_access(step.subject, after)
    return lambda: _change_access(step.subject, before)


def _change_access(path: str, access: Access) -> None:
    if access.uid is not None or access.gid is not None:
        os.chown(path, -1 if access.uid is None else access.uid, -1 if access.gid is None else access.gid)
    if access.mode is not None:
        os.chmod(path, access.mode)


def _pin(step: Step) -> Undo:
    from ...kernel import libbpf

    path, (source, access) = step.subject, step.need(Source)
    replaced = libbpf.get(path) if os.path.lexists(path) else None
    old = _place(path, True)
    if source is None:
        raise RuntimeError(f"a pin at {path} is planned without a source")
    with _by_id(step.after["kind"], int(source)) if _is_id(source) else libbpf.get(source) as descriptor:
        _pin_over(descriptor, path, access)

    def undo() -> None:
        if replaced is None or old is None:
            os.unlink(path)
        else:
            _pin_over(replaced, path, old.access)

    return undo


def _pin_over(descriptor: libbpf.Fd, path: str, access: Access) -> None:
    """Pin under a temporary name, set access, rename: nobody sees a missing or half-made pin."""
    from ...kernel import libbpf

    temporary = path + "_new"
    with contextlib.suppress(FileNotFoundError):  # of a run that was killed
        os.unlink(temporary)
    libbpf.pin(descriptor, temporary)
    with _undone_on_failure(lambda: os.unlink(temporary)):
        _change_access(temporary, access)
        os.rename(temporary, path)


def _unpin(step: Step) -> Undo:
    from ...kernel import libbpf

    path, access = step.subject, step.need(Access)
    held = None if os.path.islink(path) else libbpf.get(path)
    link = os.readlink(path) if held is None else ""
    os.unlink(path)
    return lambda: os.symlink(link, path) if held is None else _pin_over(held, path, access)


@contextlib.contextmanager
def _undone_on_failure(undo: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        undo()
        raise
