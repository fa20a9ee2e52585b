# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of ``bpf/`` on a cgroup of the test's own, for tests and benchmarks of the data path."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import compilers
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout, live, settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, loader, queues

from .host import enter
from .waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "bpf" / "sockredir.bpf.c"
_FIRST = bytes(4)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """All of it, however many reads that takes."""
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        assert part, f"end of stream, {size} bytes missing"
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@functools.lru_cache(maxsize=None)
def compiled(source: Path) -> bytes:
    """The object of a source, compiled once; an object file as it is."""
    if source.suffix == ".o":
        return source.read_bytes()
    return compilers.compile_source(str(source), {}, compilers.CLANG).data


@functools.lru_cache(maxsize=None)
def _on_peers() -> Dict[str, int]:
    """What is attached to the map of sockets, as the role does it: without ``receive`` if the kernel miscounts then."""
    verdict = {"verdict": libbpf.ATTACH_SK_MSG_VERDICT}
    return {**verdict, "receive": libbpf.ATTACH_SK_SKB_STREAM_VERDICT} if queues.one_queue().ok else verdict


def settings_of(**settings) -> settings_value.Settings:
    """Settings; what is not named has its default. ``mode`` by name."""
    if isinstance(settings.get("mode"), str):
        settings["mode"] = settings_value.Mode[settings["mode"].upper()]
    return settings_value.Settings(**settings)


class Redirection:
    """Loaded, pinned and attached programs."""

    def __init__(self, cgroup: Path, pin_dir: Path, state_dir: Path) -> None:
        self.cgroup = cgroup
        self.pin_dir = pin_dir
        self.state_dir = state_dir

    def join(self, pid: int = 0) -> None:
        """Move a process (this one) into the cgroup."""
        enter(self.cgroup, pid)

    def set(self, **settings) -> None:
        """Write settings; what is not named has its default. ``mode`` by name."""
        live.write_settings(str(self.pin_dir), str(self.state_dir), settings_of(**settings))

    def set_raw(self, value: bytes) -> None:
        """Write anything at all as settings."""
        with libbpf.Map.open_pin(str(self.pin_dir / "settings")) as settings:
            settings.update(_FIRST, value)

    def counters(self) -> Dict[str, layout.Count]:
        return live.counters(str(self.pin_dir))

    def events(self, *labels: str) -> int:
        """Sum of the events of these reasons."""
        counters = self.counters()
        return sum(counters[label].events for label in labels)

    def bytes(self, label: str) -> int:
        return self.counters()[label].bytes

    def flows(self) -> List[Tuple[layout.Key, layout.Flow]]:
        return live.flows(str(self.pin_dir))

    def flow(self, port: int) -> Optional[Tuple[layout.Side, layout.Side]]:
        """Client's and server's side of the first flow to a server port."""
        for key, flow in self.flows():
            if key.remote_port == port or key.local_port == port:
                client, server = flow.sides
                return (server, client) if client.server or key.local_port == port else (client, server)
        return None

    def peers(self) -> int:
        """Sockets in the map."""
        with libbpf.Map.open_pin(str(self.pin_dir / "peers")) as peers:
            return len(list(peers.keys()))

    def used(self) -> int:
        return live.used(str(self.pin_dir))

    def wait_until_empty(self) -> None:
        """Until nothing of any connection is left: a busy kernel takes in the last segments after ``close`` returns.

        It may keep a closed socket for tcp_fin_timeout, a minute.
        """
        wait_for(lambda: not (self.flows() or self.peers() or self.used()), 90)


@contextlib.contextmanager
def redirection(
    cgroup: Path, pin_dir: Path, state_dir: Path, source: Path = SOURCE, **entries: int
) -> Iterator[Redirection]:
    """Compile, load, pin and attach; take it all away at the end.

    :param entries: sizes of maps by name.
    """
    pin_dir.mkdir(parents=True, exist_ok=True)
    state_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        loadable = stack.enter_context(loader.Loadable(compiled(source), "sockredir", str(source), {}, entries))
        loadable.load({})
        for name in loadable.maps:
            _pin(stack, loadable.map(name), pin_dir / name)
        for name in loadable.programs:
            _pin(stack, loadable.program(name), pin_dir / name)
        group = stack.enter_context(libbpf.Fd(os.open(cgroup, os.O_RDONLY)))
        sockops, peers = (stack.enter_context(libbpf.get(str(pin_dir / name))) for name in ("sockops", "peers"))
        for name, attach_type in _on_peers().items():
            if name in loadable.programs:
                program = stack.enter_context(libbpf.get(str(pin_dir / name)))
                libbpf.attach(program, peers, attach_type)
                stack.callback(libbpf.detach, program, peers, attach_type)
        libbpf.attach(sockops, group, libbpf.ATTACH_CGROUP_SOCK_OPS, libbpf.F_ALLOW_MULTI)
        stack.callback(libbpf.detach, sockops, group, libbpf.ATTACH_CGROUP_SOCK_OPS)
        yield Redirection(cgroup, pin_dir, state_dir)


def _pin(stack: contextlib.ExitStack, found, path: Path) -> None:
    libbpf.pin(found, str(path))
    stack.callback(path.unlink)
