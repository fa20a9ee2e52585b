# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time on a host."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Iterator

from ..errors import SockredirError
from ..state.lock import try_lock

_POLL_SECONDS = 0.1


@contextlib.contextmanager
def alone(directory: str, wait_seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that goes with the process and leaves nothing: ``flock`` on a directory that is there anyway.

    :param directory: str, of a cgroup, or where cgroup2 is mounted.
    :param say: called once if another one runs.
    :raises SockredirError: it still runs after so many seconds.
    """
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline, told = time.monotonic() + wait_seconds, False
    try:
        while not try_lock(number):
            if time.monotonic() >= deadline:
                raise SockredirError(
                    f"another learn has run on this host for the last {wait_seconds:g} s",
                    "wait for it to end, or end it",
                )
            if not told:
                say(f"another learn runs on this host; waiting for it, at most {wait_seconds:g} s")
            told = True
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(number)
