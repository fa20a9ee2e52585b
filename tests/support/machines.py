# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual machines' tool with a cache of a test's own, and a disk that never boots."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from .collection import ROOT

SHARED = ROOT / "molecule" / "shared"
VM = str(SHARED / "vm")

TOOLS = ("qemu-system-x86_64", "qemu-img", "genisoimage", "ssh", "ssh-keygen", "mmdebstrap")


class Tool:
    """The tool with a cache, and an empty disk that never boots."""

    def __init__(self, place: Path) -> None:
        self.cache = place / "cache"
        self.disk = place / "empty.img"
        with open(self.disk, "wb") as disk:
            disk.truncate(1 << 20)
        self.environ = {**os.environ, "XDG_CACHE_HOME": str(self.cache), "SOCKREDIR_VM_ACCEL": "tcg"}

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
        command = [VM, *arguments]
        env = {**self.environ, **environ}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    def fails(self, *arguments: str, code: int = 1, **environ: str) -> str:
        """The one line that says why it fails."""
        done = self(*arguments, **environ)
        assert done.returncode == code, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("vm: error: ")
        assert "Traceback" not in done.stderr
        return last

    def start(self, *arguments: str) -> subprocess.Popen:
        """Starts the tool and waits until its machine runs (it never comes up: the disk is empty)."""
        tool = subprocess.Popen([VM, *arguments], env=self.environ, stderr=subprocess.PIPE, text=True)
        until(lambda: self.qemus() or tool.poll() is not None)
        assert tool.poll() is None, tool.stderr.read()
        return tool

    def qemus(self) -> list:
        """The qemus whose files lie in this cache."""
        return processes(self.cache, "qemu-system")

    def share_image(self, suite: str, packages: str) -> None:
        """Shares the user's images, and the key that they let in; this one is built if it is missing."""
        built = subprocess.run(
            [VM, "build", suite, "--with", packages], stdout=subprocess.PIPE, text=True, timeout=1200, check=True
        )
        users = Path(built.stdout.strip()).parents[2]
        own = self.cache / "sockredir-vm"
        own.mkdir(parents=True)
        for name in ("images", "ssh_key", "ssh_key.pub"):
            (own / name).symlink_to(users / name)

    def running(self, tool: str = VM) -> int:
        """How many machines the tool, this checkout's or another's, has running in this cache."""
        told = subprocess.run([tool, "list"], env=self.environ, capture_output=True, text=True, timeout=60, check=True)
        return told.stdout.count(": pid ")

    def leftovers(self) -> list:
        """Files of machines; the lock files of groups are empty and stay."""
        return [path for path in (self.cache / "sockredir-vm" / "run").glob("*/*") if path.suffix != ".lock"]


def processes(directory: Path, program: str) -> list:
    """Process ids of the programs of this name, or one that begins with it, that have a file of this directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # A script's own name comes second.
        named = any(os.path.basename(word).startswith(program.encode()) for word in command[:2])
        if named and any(os.fsencode(directory) in word for word in command):
            found.append(int(entry.name))
    return found


def until(condition, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited without success"
        time.sleep(0.05)
