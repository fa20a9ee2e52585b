# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl exec``: become another program, in the accelerated cgroup."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Sequence

from ..errors import SockredirError
from ..host import cgroups, mounts

#: As of env(1), nohup(1) and timeout(1).
NOT_EXECUTABLE, NOT_FOUND = 126, 127
#: A cgroup with controllers enabled for its children takes no process itself; a child of it does.
LEAF = cgroups.LEAF


def enter(cgroup: str) -> None:
    """Move this process into a cgroup, or a child of it if it takes none itself; stay if it is already inside.

    :param cgroup: str, absolute or relative to the cgroup2 mount.
    :raises SockredirError: there is no such cgroup, or the kernel refuses.
    """
    known = mounts.read()
    root, path = cgroups.resolve("/", known), cgroups.resolve(cgroup, known)
    if path == root or _inside(path, root):
        return
    if not os.path.isdir(path):
        raise SockredirError(f"cgroup {path} does not exist", "run: sockredirctl restore")
    try:
        _join(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise _refused(path, error) from error
        _enter_leaf(os.path.join(path, LEAF))


def execute(command: Sequence[str]) -> int:
    """Become a program; returns only if that fails, with the exit code that says why."""
    # Python ignores these two, and what is ignored stays so in the new program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    reason, code = "not found", NOT_FOUND
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        pass
    except OSError as error:
        reason, code = error.strerror or str(error), NOT_EXECUTABLE
    sys.stderr.write(f"sockredirctl: {command[0]}: {reason}\n")
    return code


def _inside(path: str, root: str) -> bool:
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        mine = next((line.rstrip("\n")[3:] for line in lines if line.startswith("0::")), "/")
    return (root + mine + "/").replace("//", "/").startswith(path + "/")


def _join(path: str) -> None:
    with open(os.path.join(path, "cgroup.procs"), "w", encoding="ascii") as processes:
        processes.write("0")  # the writer itself


def _enter_leaf(path: str) -> None:
    cgroups.create(path)
    try:
        _join(path)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: str, error: OSError) -> SockredirError:
    return SockredirError(f"cannot enter the cgroup {path}: {error.strerror}", "run it as root")
