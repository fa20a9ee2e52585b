# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A local TCP connection in a process of its own, in a cgroup, that does what it is told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Iterator

from .host import in_cgroup

_CHILD = """
import json, socket, struct, sys
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _address = listener.accept()
listener.close()
ends = {"client": client, "server": server}
for one in ends.values():
    one.settimeout(30)
sent = {"client": 0, "server": 0}
print(json.dumps("ready"), flush=True)

def pattern(start, size):
    return bytes((start + i) % 251 for i in range(size))

def send(end, size):
    ends[end].sendall(pattern(sent[end], size))
    sent[end] += size

got = {"client": 0, "server": 0}
def receive(end, size):
    data = b""
    while len(data) < size:
        more = ends[end].recv(size - len(data))
        if not more:
            break
        data += more
    right = data == pattern(got[end], size)
    got[end] += len(data)
    return right

def by_tcp(end):
    info = ends[end].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 200)
    return struct.unpack_from("=Q", info, 120)[0]  # tcpi_bytes_acked; the handshake may count 1

actions = {"send": send, "receive": receive, "by_tcp": by_tcp}
for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(actions[name](*arguments)), flush=True)
"""


class Connection:
    """Two ends, ``client`` and ``server``, that send a known pattern to each other."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def _do(self, *command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the connection's process has died"
        return json.loads(line)

    def send(self, end: str, size: int) -> None:
        """Send ``size`` bytes from this end."""
        self._do("send", end, size)

    def receive(self, end: str, size: int) -> bool:
        """Receive ``size`` bytes at this end: whether they are the right ones."""
        return self._do("receive", end, size)

    def redirected(self, end: str) -> bool:
        """Whether nothing that this end has sent went by TCP."""
        return self._do("by_tcp", end) <= 1


@contextlib.contextmanager
def connection(cgroup: Path) -> Iterator[Connection]:
    """Connect in this cgroup; the connection ends with the block."""
    process = subprocess.Popen(
        in_cgroup(cgroup, [sys.executable, "-c", _CHILD]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert json.loads(process.stdout.readline()) == "ready"
        yield Connection(process)
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()
