# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write files atomically: complete or not at all, even after a crash or with a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Iterator

from .errors import SockredirError

#: How often to try again what a process beside this one undoes.
_ATTEMPTS = 100


def make_directory(path: str, mode: int = 0o700) -> None:
    """Make a directory and those above it that are missing; another process may remove them at the same time.

    :raises SockredirError: it cannot be made.
    """
    with _explained(path):
        for _attempt in range(_ATTEMPTS):
            if _has_directory(path, mode):
                return
        raise FileNotFoundError(errno.ENOENT, "it keeps being removed")


def _has_directory(path: str, mode: int) -> bool:
    """Make a directory; whether it is there. False if one was there and has gone since.

    ``exist_ok`` will not do: ``os.makedirs`` asks again whether it is a directory, and fails if that has gone.
    """
    try:
        os.makedirs(path, mode=mode)
    except FileExistsError:
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                raise
        except FileNotFoundError:
            return False
    except FileNotFoundError:
        return False
    return True


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file: readers find the old content or the new, never a part.

    :raises SockredirError: it cannot be written; the old file is as it was.
    """
    temporary = _temporary(path)
    with _explained(path):
        try:
            number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
            with open(number, "wb") as stream:
                os.fchmod(number, mode)
                stream.write(data)
                stream.flush()
                os.fsync(number)
            os.replace(temporary, path)
        except OSError:
            _discard(temporary)
            raise
        _sync_directory(path)


def link(path: str, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, in one step also if there is one already.

    :raises SockredirError: it cannot be made; the old link is as it was.
    """
    temporary = _temporary(path)
    with _explained(path):
        _discard(temporary)
        try:
            os.symlink(target, temporary)
            os.replace(temporary, path)
        except OSError:
            _discard(temporary)
            raise
        _sync_directory(path)


def remove(path: str) -> None:
    """Remove a file; one that is not there is fine.

    :raises SockredirError: it cannot be removed.
    """
    with _explained(path):
        _discard(path)
        _sync_directory(path)


def _temporary(path: str) -> str:
    # The same name each time: writers hold the lock, and what a killed one left is written over by the next.
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.new")


def _discard(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _sync_directory(path: str) -> None:
    number = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        forbidden = isinstance(error, PermissionError) and os.geteuid() != 0
        cure = "use become: true" if forbidden else ""
        raise SockredirError(f"cannot write {path}: {error.strerror}", cure) from error
