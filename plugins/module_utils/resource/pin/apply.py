# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a pin's plan, each with its undo."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING, Callable, Dict, Iterator

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...errors import SockredirError
from .observe import by_id, is_id, place
from .plan import DIRECTORY_MODE, Access, AccessChange, Source

if TYPE_CHECKING:
    from ...kernel import libbpf

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


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
            f"path {step.subject}: bpffs cannot be mounted: {os.strerror(number)}", "run it as root on the host itself"
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
    old = place(path, True)
    if source is None:
        raise RuntimeError(f"a pin at {path} is planned without a source")
    with by_id(step.after["kind"], int(source)) if is_id(source) else libbpf.get(source) as descriptor:
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
