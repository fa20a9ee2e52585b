# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared: plain TCP, the plain pair, sockredir (also in mode observe), Unix sockets.

Each has a cgroup and ports of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

from support import datapath
from support.host import cgroup2_mount, in_cgroup, mounted_bpffs, remove_cgroup

from .names import OBSERVE, OURS, PLAIN, SUBJECTS

HERE = Path(__file__).resolve().parent
PLAIN_PAIR = HERE / "plain_pair.bpf.c"


class Subject(NamedTuple):
    """One of the things compared. ``number`` keeps its ports apart from the others'."""

    name: str
    number: int
    cgroup: Path
    directory: Path
    netns: Optional[str] = None
    """Name of the namespace where servers run, None for this one."""
    cpu: Optional[int] = None
    """The CPU that servers and clients share, None for any."""
    together: bool = False
    """Whether clients run in the servers' namespace, too."""

    def command(self, command: List[str], server: bool = False) -> List[str]:
        """The command line that runs it in the cgroup (and a server, or both, in its namespace)."""
        if self.netns and (server or self.together):
            command = ["ip", "netns", "exec", self.netns, *command]
        if self.cpu is not None:
            command = ["taskset", "--cpu-list", str(self.cpu), *command]
        return in_cgroup(self.cgroup, command)

    def run(self, command: List[str], timeout: float) -> str:
        """Run a client and return what it printed."""
        done = subprocess.run(self.command(command), capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def serving(
        self, command: List[str], ready: str, name: str = "", stop: int = signal.SIGKILL, wait: float = 20
    ) -> Iterator[None]:
        """A server for the length of the block.

        :param ready: in the line that it prints when it is.
        :param name: of its log, where that is not the program's.
        :param stop: the signal that ends it together with what it has started.
        """
        log = self.directory / f"{name or Path(command[0]).name}.log"
        with open(log, "w", encoding="utf-8") as output:
            server = subprocess.Popen(self.command(command, server=True), stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + wait
            while ready not in log.read_text(encoding="utf-8", errors="replace"):
                if server.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"{self.name}: {' '.join(command)}: {said}")
                time.sleep(0.02)
            yield
        finally:
            _end(server, stop)


def _end(server: subprocess.Popen, stop: int) -> None:
    server.send_signal(stop)
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@contextlib.contextmanager
def subjects(
    names: List[str], netns: Optional[str] = None, cpu: Optional[int] = None, **settings
) -> Iterator[Dict[str, Subject]]:
    """The subjects of these names, ready to be used.

    :param settings: of sockredir, see settings_value.Settings.
    """
    directory = Path(tempfile.mkdtemp(prefix="sockredir-bench-"))
    # Servers that are not root go through.
    directory.chmod(0o711)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        bpffs = stack.enter_context(mounted_bpffs(directory / "bpf"))
        made = {}
        for name in names:
            own = directory / name.replace(" ", "-")
            own.mkdir()
            own.chmod(0o711)
            cgroup = stack.enter_context(_cgroup())
            _redirect(stack, name, cgroup, bpffs / own.name, own / "state", settings)
            made[name] = Subject(name, SUBJECTS.index(name), cgroup, own, netns, cpu)
        yield made


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    cgroup = cgroup2_mount() / f"sockredir-bench-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        remove_cgroup(cgroup)


def _redirect(stack: contextlib.ExitStack, name: str, cgroup: Path, pins: Path, state: Path, settings: dict) -> None:
    """What the subject of this name has attached to its cgroup."""
    if name not in (PLAIN, OURS, OBSERVE):
        return
    source = PLAIN_PAIR if name == PLAIN else datapath.SOURCE
    loaded = stack.enter_context(datapath.redirection(cgroup, pins, state, source=source))
    if name == OURS:
        loaded.set(**settings)
    elif name == OBSERVE:
        loaded.set(**{**settings, "mode": "observe"})
