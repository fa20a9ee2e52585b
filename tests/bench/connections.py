# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What many connections cost: ``python3 tests/bench/connections.py 1000 10000 60000`` as root, on a quiet machine.

Kernel memory (slabs, per-CPU, vmalloc) of a connection and CPU time of a message, by plain TCP and redirected.
One thread holds both ends of a connection, so that a message costs its way and no wake-up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, Iterator, List, NamedTuple, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.collection import map_collection

map_collection()

from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from support import datapath
from support.host import cgroup2_mount, enter, mounted_bpffs, remove_cgroup

#: What the kernel cannot reclaim; of the rest only the sockets' inodes.
_MEMORY = ("SUnreclaim", "Percpu", "VmallocUsed")
_MESSAGES, _SIZE = 40_000, 64
#: Connections of one process, as it may open only so many files.
_PER_PROCESS = 9_000
#: Two sockets for each connection.
_FLOWS = 65_536
_MAPS = ("peers", "flows", "settings", "counters", "ports", "events")
Pair = Tuple[socket.socket, socket.socket]


class Held(NamedTuple):
    """Bytes of kernel memory for a connection, nanoseconds of CPU for a message, messages redirected of those sent."""

    bytes: float
    message_ns: float
    redirected: float


def _memory() -> int:
    """Bytes that the kernel uses for itself."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    found = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return 1024 * sum(found[name] for name in _MEMORY) + _inodes()


def _inodes() -> int:
    for line in Path("/proc/slabinfo").read_text(encoding="ascii").splitlines():
        name, *figures = line.split()
        if name == "sock_inode_cache":
            return int(figures[1]) * int(figures[2])
    return 0


def _settled() -> int:
    """The same when it has stopped to change, as what is freed is freed later."""
    last = _memory()
    for _attempt in range(4):
        time.sleep(0.5)
        now = _memory()
        if abs(now - last) < 200_000:
            return now
        last = now
    return last


def _connect(count: int, address: str) -> List[Pair]:
    with socket.create_server((address, 0), backlog=64) as listener:
        pairs = []
        for _number in range(count):
            client = socket.create_connection(listener.getsockname())
            pairs.append((client, listener.accept()[0]))
        return pairs


def _exchange(pair: Pair, message: bytes) -> None:
    for sender, reader in (pair, pair[::-1]):
        sender.sendall(message)
        datapath.read_exactly(reader, _SIZE)


def _work(pairs: List[Pair], messages: int) -> float:
    """Nanoseconds of CPU that a message takes on any of the connections."""
    message = bytes(_SIZE)
    chosen = random.Random(1).choices(pairs, k=messages // 2)
    begin = time.process_time_ns()
    for pair in chosen:
        _exchange(pair, message)
    return (time.process_time_ns() - begin) / messages


def _child(number: int, count: int, say: BinaryIO, go: BinaryIO) -> None:
    """Open connections and use each once; work when told to, say what it took, and hold them until told to end."""
    pairs = _connect(count, f"127.0.1.{1 + number}")
    for pair in pairs:
        _exchange(pair, bytes(_SIZE))
    say.write(b"open\n")
    go.readline()
    say.write(b"%f\n" % _work(pairs, _MESSAGES))
    go.readline()


class Holder:
    """A process in the cgroup that holds connections."""

    def __init__(self, cgroup: Path, number: int, count: int) -> None:
        said, say = os.pipe()
        go, tell = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(said)
            os.close(tell)
            self._run(cgroup, number, count, say, go)
        os.close(say)
        os.close(go)
        self._said, self._tell = os.fdopen(said, "rb", 0), os.fdopen(tell, "wb", 0)

    @staticmethod
    def _run(cgroup: Path, number: int, count: int, say: int, go: int) -> None:
        try:
            enter(cgroup)
            _child(number, count, os.fdopen(say, "wb", 0), os.fdopen(go, "rb", 0))
        finally:
            os._exit(0)

    def line(self) -> bytes:
        """What it says next."""
        line = self._said.readline()
        if not line:
            raise SystemExit("connections: a process that holds them failed")
        return line

    def tell(self) -> None:
        self._tell.write(b"\n")

    def end(self) -> None:
        for pipe in (self._tell, self._said):
            pipe.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextlib.contextmanager
def _holding(cgroup: Path, count: int) -> Iterator[List[Holder]]:
    """Processes that hold so many connections for the length of the block."""
    holders = []
    try:
        while count:
            share = min(count, _PER_PROCESS)
            holders.append(Holder(cgroup, len(holders), share))
            # One after the other, as a CPU is.
            holders[-1].line()
            count -= share
        yield holders
    finally:
        for holder in holders:
            holder.end()


def hold(cgroup: Path, count: int, loaded: Optional[datapath.Redirection]) -> Held:
    """What so many connections in the cgroup cost; the last process works, on its connections."""
    before = _settled()
    with _holding(cgroup, count) as holders:
        used = _settled() - before
        counted = loaded.events("redirected") if loaded else 0
        holders[-1].tell()
        spent = float(holders[-1].line())
        redirected = loaded.events("redirected") - counted if loaded else 0
    return Held(used / count, spent, redirected / _MESSAGES)


def _row(cgroup: Path, count: int, repeats: int, loaded: Optional[datapath.Redirection]) -> Held:
    return Held(
        *(statistics.median(values) for values in zip(*(hold(cgroup, count, loaded) for _turn in range(repeats))))
    )


def _maps(loaded: datapath.Redirection) -> int:
    """Bytes that the maps take, as the kernel says."""
    taken = 0
    for name in _MAPS:
        with libbpf.Map.open_pin(str(loaded.pin_dir / name)) as opened:
            lines = Path(f"/proc/self/fdinfo/{opened.fileno()}").read_text(encoding="ascii").splitlines()
            taken += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
    return taken


def measure(counts: List[int], repeats: int) -> None:
    """Print a table: plain TCP first, then redirected, as the maps are loaded in between."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sockredir-bench-")))
        cgroup = cgroup2_mount() / f"sockredir-bench-{os.getpid()}"
        cgroup.mkdir()
        stack.callback(remove_cgroup, cgroup)
        # The first connections fill the kernel's own caches.
        hold(cgroup, max(counts), None)
        plain = {count: _row(cgroup, count, repeats, None) for count in counts}
        bpffs = stack.enter_context(mounted_bpffs(directory / "bpf"))
        entries = {"flows": _FLOWS, "peers": 2 * _FLOWS}
        loaded = stack.enter_context(datapath.redirection(cgroup, bpffs / "pins", directory / "state", **entries))
        print(f"maps for {_FLOWS} connections at most: {_maps(loaded) / 2**20:.1f} MiB")
        loaded.set()
        print("| connections | KiB each, TCP | redirected | more | CPU per message, TCP | redirected | of them |")
        print("|---|---|---|---|---|---|---|")
        for count in counts:
            _show(count, plain[count], _row(cgroup, count, repeats, loaded))


def _show(count: int, plain: Held, ours: Held) -> None:
    sizes = f"{plain.bytes / 1024:.2f} | {ours.bytes / 1024:.2f} | {(ours.bytes - plain.bytes) / 1024:.2f}"
    times = f"{plain.message_ns / 1000:.2f} us | {ours.message_ns / 1000:.2f} us"
    print(f"| {count} | {sizes} | {times} | {ours.redirected:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("connections", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * _PER_PROCESS + 100,) * 2)
    measure(sorted(options.connections), options.repeats)


if __name__ == "__main__":
    main()
