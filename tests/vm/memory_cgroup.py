# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What memory_cgroup.sh runs in a virtual machine, as root: ``memory_cgroup.py OBJECT``."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, "tests/conformance")

from conform import redirection

MIB = 1 << 20
SENT = 24
#: The limit, what uses it up, how much of it is left then, in MiB. A socket in the map has 64 of them at first.
CASES = (
    (40, "nothing", 40),
    (40, "memory", 1),
    (40, "files", 0),
    (120, "nothing", 120),
    (120, "memory", 16),
    (120, "files", 0),
)
CHUNK = os.urandom(MIB)
CACHED = Path("/root/cached")
SECONDS = 60


def enter(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def forked(work) -> tuple:
    """Its process, and a file with the lines that it says."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(lambda text: os.write(writer, f"{text}\n".encode()))
        finally:
            os._exit(0)
    os.close(writer)
    return child, os.fdopen(reader)


def heard(lines) -> str:
    return lines.readline().strip() if select.select([lines], [], [], SECONDS)[0] else "nothing"


def use(what: str, left: int, cgroup: Path) -> list:
    """Fill the cgroup, with memory of this process or with files, which give way."""
    kept, limit = [], int((cgroup / "memory.max").read_text())
    if what == "memory":
        while int((cgroup / "memory.current").read_text()) < limit - left * MIB:
            kept.append(bytearray(b"x") * (256 << 10))
    elif what == "files":
        with CACHED.open("wb") as file:
            for _each in range(2 * limit // MIB):
                file.write(CHUNK)
    return kept


def read(cgroup: Path, what: str, left: int, say) -> None:
    enter(cgroup)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say(listener.getsockname()[1])
        server = listener.accept()[0]
        kept = use(what, left, cgroup)
        say("full")
        time.sleep(1)
        seen, buffer = hashlib.sha256(), bytearray(65536)
        while True:
            count = server.recv_into(buffer)
            if not count:
                break
            seen.update(memoryview(buffer)[:count])
        say(seen.hexdigest())
        del kept


def write(cgroup: Path, port: int, full: int, say) -> None:
    enter(cgroup)
    with socket.create_connection(("127.0.0.1", port)) as client:
        os.read(full, 1)
        try:
            for _each in range(SENT):
                client.sendall(CHUNK)
        except OSError as error:
            say(f"{error}")
    say("sent")


def transfer(base: str, limit: int, what: str, left: int) -> list:
    """What writer and reader said last, and how many processes were killed."""
    reader, writer = Path(base, "reader"), Path(base, "writer")
    for cgroup in (reader, writer):
        cgroup.mkdir()
    (reader / "memory.max").write_text(str(limit * MIB))
    with contextlib.suppress(OSError):
        (reader / "memory.swap.max").write_text("0")
    reading, said = forked(lambda say: read(reader, what, left, say))
    port = int(heard(said))
    waiting, go = os.pipe()
    writing, told = forked(lambda say: write(writer, port, waiting, say))
    assert heard(said) == "full"
    os.write(go, b"!")
    found = [heard(told), heard(said)]
    for child in (writing, reading):
        os.kill(child, 9)
        os.waitpid(child, 0)
    events = dict(line.split() for line in (reader / "memory.events").read_text().splitlines())
    CACHED.unlink(missing_ok=True)
    for cgroup in (reader, writer):
        _remove(cgroup)
    return [*found, int(events["oom_kill"])]


def _remove(cgroup: Path) -> None:
    for _attempt in range(100):
        try:
            cgroup.rmdir()
            return
        except OSError:
            time.sleep(0.05)


def main() -> None:
    whole = hashlib.sha256(CHUNK * SENT).hexdigest()
    with redirection.own(Path(sys.argv[1]).read_bytes()) as (plain, loaded):
        inner = (redirection.cgroup2_mount(), os.path.dirname(plain), plain, loaded.cgroup)
        for cgroup in inner:
            Path(cgroup, "cgroup.subtree_control").write_text("+memory")
        for limit, what, left in CASES:
            for base in (plain, loaded.cgroup):
                found = transfer(base, limit, what, left)
                print(limit, what, left, os.path.basename(base), found, flush=True)
                assert found == ["sent", whole, 0]
        counted = loaded.maps.counters()
        print({name: count for name, count in counted.items() if count})
        assert counted["redirected"]
        assert counted["skip_full"] == 3, "those in a cgroup of 40 MiB"
        assert loaded.maps.entries() == 0
        for cgroup in reversed(inner[1:]):
            Path(cgroup, "cgroup.subtree_control").write_text("-memory")
    print("passed")


if __name__ == "__main__":
    main()
