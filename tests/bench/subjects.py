# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared: plain TCP, the plain pair, sockredir, Unix sockets; each with a cgroup and ports of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

from support import datapath
from support.host import cgroup2_mount, remove_cgroup

HERE = Path(__file__).resolve().parent
PLAIN_PAIR = HERE / "plain_pair.bpf.c"
TCP, PLAIN, OURS, UNIX = "TCP", "plain pair", "sockredir", "Unix sockets"
SUBJECTS = (TCP, PLAIN, OURS, UNIX)


class Subject(NamedTuple):
    """One of the things compared. ``number`` keeps its ports apart from the others'."""

    name: str
    number: int
    cgroup: Path
    directory: Path
    netns: Optional[str] = None
    """Name of the namespace where servers run, None for this one."""

    def command(self, command: List[str], server: bool = False) -> List[str]:
        """The command line that runs it in the cgroup (and a server in its namespace)."""
        if server and self.netns:
            command = ["ip", "netns", "exec", self.netns, *command]
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.cgroup), *command]

    def run(self, command: List[str], timeout: float) -> str:
        """Run a client and return what it printed."""
        done = subprocess.run(self.command(command), capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def serving(self, command: List[str], ready: str = "", wait: float = 10) -> Iterator[None]:
        """A server for the length of the block; ``ready`` is in the line that it prints when it is."""
        log = self.directory / f"{Path(command[0]).name}.log"
        with open(log, "w", encoding="utf-8") as output:
            server = subprocess.Popen(self.command(command, server=True), stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + wait
            while ready not in log.read_text(encoding="utf-8") or not log.stat().st_size:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name}: {' '.join(command)}: {log.read_text(encoding='utf-8')}")
                time.sleep(0.02)
            yield
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def subjects(names: List[str], netns: Optional[str] = None, **settings) -> Iterator[Dict[str, Subject]]:
    """The subjects of these names, ready to be used.

    :param settings: of sockredir, see layout.Settings.
    """
    directory = Path(tempfile.mkdtemp(prefix="sockredir-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        bpffs = directory / "bpf"
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", str(bpffs)], check=True)
        made = {}
        for name in names:
            cgroup = cgroup2_mount() / f"sockredir-bench-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            cgroup.mkdir()
            stack.callback(remove_cgroup, cgroup)
            own = directory / name.replace(" ", "-")
            own.mkdir()
            if name in (PLAIN, OURS):
                source = PLAIN_PAIR if name == PLAIN else datapath.SOURCE
                pins = bpffs / own.name
                loaded = stack.enter_context(datapath.redirection(cgroup, pins, own / "state", source=source))
                if name == OURS:
                    loaded.set(**settings)
            made[name] = Subject(name, SUBJECTS.index(name), cgroup, own, netns)
        yield made
