# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real pair of programs, loaded and attached in a sandbox on the host."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any, Dict

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import live, settings_value
from support.collection import ROOT
from support.harness import Harness
from support.host import in_cgroup

_TALKER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.socket(family)
server.bind((sys.argv[1], 0))
server.listen()
client = socket.create_connection(server.getsockname()[:2])
peer = server.accept()[0]
for _round in range(10):
    client.sendall(b"x" * 1000)
    got = 0
    while got < 1000:
        got += len(peer.recv(4096))
    peer.sendall(b"y")
    client.recv(1)
print(client.getsockname()[1], server.getsockname()[1], flush=True)
sys.stdin.read()
"""


class Enabled(Harness):
    """A sandbox with the pair in it."""

    def info(self, *gather: str, **options: Any) -> Dict[str, Any]:
        given = {"gather": list(gather), "state_dir": str(self.sandbox.state_dir), **options}
        result = self.must("sockmap_info", **given)
        assert result["changed"] is False
        return result

    @contextlib.contextmanager
    def talking(self, address: str = "127.0.0.1", prefix: tuple = ()) -> Any:
        """A process of the cgroup with an open connection to itself that has sent 10 messages each way.

        Gives its pid, and the ports of client and server.
        """
        process = subprocess.Popen(
            in_cgroup(self.sandbox.cgroup, [*prefix, sys.executable, "-c", _TALKER, address]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            line = process.stdout.readline()
            assert line, f"the talker ended with {process.wait()}"
            yield (process.pid, *map(int, line.split()))
        finally:
            process.stdin.close()
            assert process.wait(timeout=30) == 0
            process.stdout.close()


@pytest.fixture
def enabled(host) -> Enabled:
    own = Enabled(host)
    pins, state = own.places["pin_dir"], own.places["state_dir"]
    own.must("bpffs_pin", path=pins, state="directory")
    own.must(
        "sockmap_program",
        name="sockredir",
        src=str(ROOT / "bpf/sockredir.bpf.c"),
        pin_dir=pins,
        state_dir=state,
        max_entries={"peers": 1024, "flows": 512},
    )
    live.write_settings(pins, state, settings_value.Settings(budget=64 << 20))
    for name, needs in (("receive", {"needs": "one_queue"}), ("verdict", {})):
        own.must("sockmap_attach", program=f"{pins}/{name}", map=f"{pins}/peers", state_dir=state, **needs)
    own.must("sockmap_attach", program=f"{pins}/sockops", cgroup=str(host.cgroup), state_dir=state)
    return own


@pytest.fixture
def bare(host) -> Enabled:
    """A sandbox with nothing in it."""
    return Enabled(host)
