# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace for one test, whose loopback device carries no other bytes."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from typing import Iterator, List


class Netns:
    """:param name: str, as ``ip netns`` knows it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def prefix(self) -> List[str]:
        """Words before a command that is to run there. Unlike ``ip netns exec`` this leaves /sys as it is."""
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def run(self, *command: str, timeout: float = 120) -> str:
        """What a command printed there; CalledProcessError where it failed."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def lo_bytes(self) -> int:
        """What the loopback device has sent so far."""
        lines = self.run("cat", "/proc/self/net/dev").splitlines()
        return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


@contextlib.contextmanager
def netns() -> Iterator[Netns]:
    """A namespace with its loopback device up, gone afterwards."""
    own = Netns(f"sockredir-test-{uuid.uuid4().hex[:8]}")
    subprocess.run(["ip", "netns", "add", own.name], check=True)
    try:
        own.run("ip", "link", "set", "lo", "up")
        yield own
    finally:
        subprocess.run(["ip", "netns", "delete", own.name], check=True)
