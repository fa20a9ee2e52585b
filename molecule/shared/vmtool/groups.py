# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups of machines: one creation at a time, which a later destroy can end.

Where molecule or its playbook is killed, the creation that it started goes on by itself, and would boot machines into
the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path
from typing import IO, Iterator, List

from .errors import VmError
from .layout import cache_dir, state_dir
from .machine import Machine

# A creation that is told to end stops its machine first.
END_LIMIT_S = 60


@contextlib.contextmanager
def creating(group: Path) -> Iterator[None]:
    """Holds the group's lock, with our process id in it; raises VmError where another creation holds it."""
    with _lock_file(group) as lock:
        if not _take(lock):
            raise VmError(f"the machines of {group.name!r} are being created already: wait, or destroy them")
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def end_creation(group: Path) -> None:
    """Ends a creation of this group that still runs; raises VmError where it does not go."""
    with _lock_file(group) as lock:
        end = time.monotonic() + END_LIMIT_S
        told = 0
        while not _take(lock):
            lock.seek(0)
            # Who holds the lock wrote this: it cannot be another process that got the number since.
            owner = int(lock.read().strip() or 0)
            if owner and owner != told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(owner, signal.SIGTERM)
                told = owner
            if time.monotonic() > end:
                raise VmError(f"the creation of {group.name!r} (pid {owner}) does not end: end it by hand")
            time.sleep(0.2)


def claim(directory: Path, project: Path, group: str) -> None:
    """Marks molecule's directory as this checkout's.

    Molecule names it after the last component of the checkout's path: two checkouts may mean the same one. Raises
    VmError where the other's machines run; they would be mistaken for ours.
    """
    mark = directory.with_name(f"{directory.name}.checkout")
    with contextlib.suppress(FileNotFoundError):
        owner = Path(mark.read_text(encoding="utf-8").strip())
        if owner != project and any(machine.qemu.pid() for machine in machines(state_dir(owner, group))):
            cure = "let it finish, or use ./run molecule, which sets MOLECULE_EPHEMERAL_DIRECTORY"
            raise VmError(f"{directory} is in use by the checkout {owner}: {cure}")
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"{project}\n", encoding="utf-8")


def machines(group: Path) -> List[Machine]:
    """The machines that have a directory in this group."""
    return [Machine(entry, cache_dir()) for entry in sorted(group.glob("*")) if entry.is_dir()]


def _lock_file(group: Path) -> IO[str]:
    group.parent.mkdir(parents=True, exist_ok=True)
    return open(group.with_name(f".{group.name}.lock"), "a+", encoding="ascii")


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
