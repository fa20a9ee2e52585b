# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox on the live host that belongs to one test: a cgroup, a bpffs and a state directory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Sequence

from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, libbpf

from .waiting import wait_for


def cgroup2_mount() -> Path:
    """Where cgroup2 is mounted; FileNotFoundError where it is not."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _dash, right = line.partition(" - ")
        if right.split()[0] == "cgroup2":
            return Path(left.split()[4])
    raise FileNotFoundError("no cgroup2 is mounted")


@dataclass(frozen=True)
class Sandbox:
    """What a test may change. ``cgroup`` exists, ``bpffs`` is mounted, ``state_dir`` does not exist yet."""

    cgroup: Path
    bpffs: Path
    state_dir: Path

    @property
    def pin_dir(self) -> Path:
        return self.bpffs / "sockredir"


def enter(cgroup: Path, pid: int = 0) -> None:
    """Move a process (this one) into a cgroup."""
    (cgroup / "cgroup.procs").write_text(str(pid))


def cgroup_now() -> Path:
    """The cgroup that this process is in."""
    line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return cgroup2_mount() / line[3:].lstrip("/")


@contextlib.contextmanager
def inside(cgroup: Path) -> Iterator[None]:
    """Inside the context, this process is in a cgroup. A socket belongs to the cgroup in which it was made."""
    home = cgroup_now()
    enter(cgroup)
    try:
        yield
    finally:
        enter(home)


def in_cgroup(cgroup: Path, command: Sequence[str]) -> List[str]:
    """The command line that runs it in a cgroup, under the process id that it is started with."""
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup), *command]


@contextlib.contextmanager
def mounted_bpffs(point: Path) -> Iterator[Path]:
    """A bpffs on a directory made for it; whatever is pinned there goes with it."""
    point.mkdir(parents=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@contextlib.contextmanager
def sandbox(directory: Path) -> Iterator[Sandbox]:
    """Make a sandbox under ``directory``, and remove all of it afterwards."""
    cgroup = cgroup2_mount() / f"sockredir-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with mounted_bpffs(directory / "bpf") as bpffs:
        cgroup.mkdir()
        try:
            yield Sandbox(cgroup, bpffs, directory / "state")
        finally:
            remove_cgroup(cgroup)


def wait_until_detached(cgroup: Path) -> None:
    """Wait until no sock_ops program is attached: the kernel detaches a link a moment after its last holder lets go."""

    def is_detached() -> bool:
        with attachments.opened("cgroup", str(cgroup)) as target:
            return not libbpf.query(target, libbpf.ATTACH_CGROUP_SOCK_OPS).program_ids

    wait_for(is_detached, otherwise=f"a program is still attached to {cgroup}")


def remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup and those in it; the kernel needs a moment after their last process has ended."""
    if not cgroup.is_dir():
        return
    for directory, _names, _files in os.walk(cgroup, topdown=False):
        for _attempt in range(100):
            try:
                os.rmdir(directory)
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError(f"{directory} still has processes: {Path(directory, 'cgroup.procs').read_text()!r}")
