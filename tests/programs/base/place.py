# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where one way of running the programs takes place: a cgroup, a network namespace and a directory of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

from support import datapath
from support.host import Sandbox, in_cgroup, inside, sandbox
from support.netns import Netns, netns

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Done(NamedTuple):
    """How a program ended."""

    exit: int
    out: bytes
    err: bytes


class Place:
    """Starts programs in its cgroup and namespace, where every port is free.

    :ivar directory: what it holds is gone afterwards; anybody can look into it.
    :ivar redirection: None where no programs are attached.
    :param shared: a directory that several places share.
    :param patience: float, factor on all time-outs.
    :param scale: float, factor on the size of what is moved.
    """

    def __init__(self, own: Sandbox, net: Netns, shared: Path, patience: float, scale: float) -> None:
        self.directory = own.bpffs.parent
        self.redirection: Optional[datapath.Redirection] = None
        self.patience = patience
        self._scale = scale
        self._shared = shared
        self._cgroup = own.cgroup
        self._net = net
        self._lock = threading.Lock()

    def scaled(self, number: int, least: int = 1) -> int:
        """So many, fewer on a slow machine."""
        return max(least, int(number * self._scale))

    def prepared(self, name: str, make: Callable[[Path], None]) -> Path:
        """A directory that takes long to make: made in the first place, a copy of that in each further one."""
        own, kept = self.directory / name, self._shared / name
        if kept.exists():
            subprocess.run(["cp", "-a", str(kept), str(own)], check=True)
        else:
            make(own)
            subprocess.run(["cp", "-a", str(own), str(kept)], check=True)
        return own

    def command(self, argv: List[str]) -> List[str]:
        """The command line that runs it in here, under the process id that it is started with."""
        return in_cgroup(self._cgroup, [*self._net.prefix, *argv])

    def run(self, argv: List[str], give: bytes = b"", wait: float = 60, env: Optional[Dict[str, str]] = None) -> Done:
        """Run a program to its end. subprocess.TimeoutExpired where it hangs: it is killed then."""
        done = subprocess.run(
            self.command(argv),
            input=give,
            capture_output=True,
            timeout=wait * self.patience,
            check=False,
            cwd=self.directory,
            env={**os.environ, **(env or {})},
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def must(self, argv: List[str], give: bytes = b"", wait: float = 60) -> bytes:
        """What a program printed that has to succeed."""
        done = self.run(argv, give, wait)
        assert done.exit == 0, f"{' '.join(argv)}: exit {done.exit}: {(done.err or done.out).decode(errors='replace')}"
        return done.out

    @contextlib.contextmanager
    def started(self, argv: List[str], log: str = "") -> Iterator[subprocess.Popen]:
        """A program for the length of the block; what it prints goes to a file named ``log`` (its own name)."""
        path = self.directory / f"{log or Path(argv[0]).name}.log"
        with open(path, "ab") as output:
            process = subprocess.Popen(
                self.command(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory
            )
        try:
            yield process
        finally:
            _end(process, signal.SIGTERM, 10 * self.patience)

    @contextlib.contextmanager
    def serving(self, argv: List[str], port: int, log: str = "", wait: float = 60) -> Iterator[None]:
        """A server for the length of the block, which begins when it takes connections."""
        with self.started(argv, log) as process:
            deadline = time.monotonic() + wait * self.patience
            while not self._answers(port):
                assert process.poll() is None, f"{argv[0]} has ended: {self.log(log or Path(argv[0]).name)}"
                assert time.monotonic() < deadline, f"{argv[0]} takes no connection: {self.log(Path(argv[0]).name)}"
                time.sleep(0.02)
            yield

    def log(self, name: str) -> str:
        """The end of what a program has printed."""
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]

    def connect(self, port: int, wait: float = 60) -> socket.socket:
        """A socket of the test itself as if a program in here had made it; time-out of each call set."""
        with self._lock, inside(self._cgroup):
            return self._in_namespace(lambda: socket.create_connection(("127.0.0.1", port), wait * self.patience))

    def _answers(self, port: int) -> bool:
        # From outside of the cgroup, so that the connection is not counted.
        try:
            self._in_namespace(lambda: socket.create_connection(("127.0.0.1", port), 5)).close()
        except OSError:
            return False
        return True

    def _in_namespace(self, make: Callable[[], socket.socket]) -> socket.socket:
        """Call in a thread that has gone to the namespace, which is a thread's property."""
        made: List[object] = []

        def enter() -> None:
            try:
                with open(f"/run/netns/{self._net.name}", "rb") as namespace:
                    if _libc.setns(namespace.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                made.append(make())
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def end_all(self) -> None:
        """Kill what is still in the cgroup: what servers have left behind."""
        for pid in Path(self._cgroup, "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _end(process: subprocess.Popen, number: int, wait: float) -> None:
    process.send_signal(number)
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def place(redirected: bool, shared: Path, patience: float = 1, scale: float = 1) -> Iterator[Place]:
    """A place, with the programs attached or without; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="sockredir-programs-"))
    directory.chmod(0o755)  # servers give up their privileges
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        own = stack.enter_context(sandbox(directory))
        made = Place(own, stack.enter_context(netns()), shared, patience, scale)
        stack.callback(made.end_all)
        if redirected:
            made.redirection = stack.enter_context(datapath.redirection(own.cgroup, own.pin_dir, own.state_dir))
        yield made
