# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's ordinary files: observe them, and change each in one step that a crash cannot split."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Callable, NamedTuple, Optional

from .. import atomic_file
from ..errors import SockredirError


class File(NamedTuple):
    """A regular file or a symlink.

    :param text: str, the content of a file, the target of a symlink.
    :param mode: int, permission bits; 0 for a symlink.
    :param link: bool, whether it is a symlink.
    """

    text: str
    mode: int = 0o644
    link: bool = False

    def show(self) -> str:
        """What a diff shows: the whole text if it is short, else its digest."""
        if self.link:
            return f"-> {self.text}"
        body = self.text if len(self.text) <= 2048 else f"sha256:{digest(self.text)}\n"
        return f"mode {self.mode:04o}\n{body}"


def digest(text: str) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def symlink(target: str) -> File:
    return File(target, 0, True)


def read(path: str) -> Optional[File]:
    """What is at a path; None if nothing is.

    :raises SockredirError: it is neither a file nor a symlink, or cannot be read.
    """
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return symlink(os.readlink(path))
        if not stat.S_ISREG(found.st_mode):
            raise SockredirError(f"{path} is not a regular file", "move it away")
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return File(stream.read(), stat.S_IMODE(found.st_mode))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SockredirError(f"{path} cannot be read: {error.strerror}") from error


def replace(path: str, wanted: File) -> None:
    """Put a file at a path, making its directories; whoever looks sees the old or the new one, whole.

    :raises SockredirError: the disk is full, read-only ...; the old file is still in place.
    """
    atomic_file.make_directory(os.path.dirname(path), 0o755)
    if wanted.link:
        atomic_file.link(path, wanted.text)
    else:
        atomic_file.write(path, wanted.text.encode("utf-8", "surrogateescape"), wanted.mode)


def remove(path: str, keep: str) -> None:
    """Remove a file, and those of its directories below ``keep`` that are empty then.

    :raises SockredirError: it cannot be removed.
    """
    if read(path):
        atomic_file.remove(path)
    prune(os.path.dirname(path), keep)


def prune(directory: str, keep: str) -> None:
    """Remove a directory and its parents as far as they are empty, up to but not including ``keep``."""
    while directory.startswith(keep.rstrip("/") + "/"):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            return
        directory = os.path.dirname(directory)


def change(path: str, wanted: Optional[File], keep: str) -> Callable[[], None]:
    """Write or remove a file; returns what puts back the one that was there."""
    before = read(path)
    _put(path, wanted, keep)
    return lambda: _put(path, before, keep)


def _put(path: str, wanted: Optional[File], keep: str) -> None:
    if wanted is None:
        remove(path, keep)
    else:
        replace(path, wanted)
