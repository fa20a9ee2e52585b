# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One change at a time on a host: ``flock`` on a file in the state directory.

Every change of the library takes it here, around its observe, plan and apply; no caller has to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator

from .. import atomic_file
from ..errors import SockredirError

NAME = "lock"
#: How long a change waits for another one unless it is told otherwise; ``lock_timeout`` of the modules.
WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.05
_ATTEMPTS = 100


@contextlib.contextmanager
def hold(state_dir: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the host's lock; reading needs none.

    The kernel frees the lock when its holder dies, however it dies. The state directory is created for it, and removed
    again if nothing else has come into it. It may also be removed under the lock.

    :param state_dir: str, the state directory.
    :param wait_seconds: float, how long to wait for another run.
    :raises SockredirError: another run still holds it then, or the directory cannot be made.
    """
    existed = os.path.isdir(state_dir)
    number = _acquire(state_dir, wait_seconds)
    try:
        yield
    finally:
        if not existed:
            _remove_if_unused(state_dir, number)
        os.close(number)


def _remove_if_unused(state_dir: str, number: int) -> None:
    """Remove the state directory if our lock is all that is in it; whoever waits for it creates both again."""
    path = os.path.join(state_dir, NAME)
    with contextlib.suppress(OSError):
        if os.listdir(state_dir) == [NAME] and _is_at(number, path):
            os.unlink(path)
            os.rmdir(state_dir)


def _acquire(state_dir: str, wait_seconds: float) -> int:
    path = os.path.join(state_dir, NAME)
    deadline = time.monotonic() + wait_seconds
    while True:
        number = _open(state_dir, path)
        if try_lock(number) and _is_at(number, path):
            _sign(number)
            return number
        holder = _holder(number)
        os.close(number)
        if time.monotonic() >= deadline:
            raise SockredirError(
                f"another run{holder} has held {path} for the last {wait_seconds:g} s", "wait for it to end, or end it"
            )
        time.sleep(_POLL_SECONDS)


def _open(state_dir: str, path: str) -> int:
    """The file's descriptor. Its directory may go in between, with the run that removes it, and is made again."""
    try:
        for _attempt in range(_ATTEMPTS):
            atomic_file.make_directory(state_dir)
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SockredirError(f"cannot open {path}: {error.strerror}") from error
    raise SockredirError(f"cannot open {path}: another process keeps removing {state_dir}", "find out which one")


def try_lock(number: int) -> bool:
    """Whether the open file or directory is locked by this process now; it does not wait."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(number: int, path: str) -> bool:
    """Whether the locked file is still the one at ``path``: the last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(number: int) -> None:
    with contextlib.suppress(OSError):  # for people only; a full disk is no reason to stop here
        os.ftruncate(number, 0)
        os.pwrite(number, b"%d\n" % os.getpid(), 0)


def _holder(number: int) -> str:
    text = os.pread(number, 32, 0).decode("ascii", "replace").strip()
    return f" (process {text})" if text.isdigit() else ""
