# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of ``bpf/intercept.bpf.c`` on cgroups of the test's own, and a proxy that says what it is told."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import selectors
import socket
import struct
import threading
from pathlib import Path
from typing import ContextManager, Dict, Iterator, List, Optional

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept, intercept_live
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import hooks, libbpf, loader

from .datapath import ROOT, compiled
from .host import cgroup2_mount, inside
from .waiting import wait_for

SOURCE = ROOT / "bpf" / "intercept.bpf.c"
#: Nothing of this machine: what documentation uses. A connection that is not intercepted does not get there.
FAR4, FAR6 = "203.0.113.7", "2001:db8::7"
FULL_LISTS = {"cidrs": tuple(f"127.0.{n}.0/24" for n in range(32)), "ports": tuple((n, n) for n in range(49, 81))}
#: A rule, a destination, and whether the rule is for it.
RULES = [
    ({}, (FAR4, 80), True),
    ({}, ("127.0.0.77", 80), False),
    ({}, ("0.0.0.0", 80), False),
    ({}, ("::1", 80), False),
    ({"cidrs": ("127.0.0.64/26",)}, ("127.0.0.77", 80), True),
    ({"cidrs": ("127.0.0.64/26",)}, ("127.0.0.130", 80), False),
    ({"cidrs": ("127.0.0.64/26",)}, ("::ffff:127.0.0.77", 80), True),
    ({"cidrs": ("127.0.0.0/8",), "exclude_cidrs": ("127.0.0.77/32",)}, ("127.0.0.77", 80), False),
    ({"cidrs": ("::1/128",)}, ("::1", 80), True),
    ({"exclude_cidrs": ("127.0.0.0/8",)}, (FAR6, 80), True),
    ({"cidrs": ("2001:db8::/32",)}, (FAR6, 80), True),
    ({"cidrs": ("2001:db8::/32",), "exclude_cidrs": ("2001:db8::/64",)}, ("2001:db8:0:1::1", 80), True),
    ({"cidrs": ("127.0.0.0/8",), "ports": ((80, 80), (8000, 8999))}, ("127.0.0.77", 8500), True),
    ({"cidrs": ("127.0.0.0/8",), "ports": ((80, 80), (8000, 8999))}, ("127.0.0.77", 9000), False),
    ({"cidrs": ("127.0.0.0/8",), "exclude_ports": ((80, 80),)}, ("127.0.0.77", 80), False),
    ({"cidrs": ("127.0.0.0/8",), "ports": ((80, 80),), "exclude_ports": ((80, 80),)}, ("127.0.0.77", 80), False),
    (
        FULL_LISTS,
        ("127.0.31.1", 80),
        True,
    ),
    (
        FULL_LISTS,
        ("127.0.32.1", 80),
        False,
    ),
]
SO_ORIGINAL_DST = 80
SOL_IPV6 = 41


def end_of(address) -> str:
    """``ADDRESS PORT`` of what a socket call returns; v4-mapped as IPv4."""
    ip = ipaddress.ip_address(address[0])
    return f"{getattr(ip, 'ipv4_mapped', None) or ip} {address[1]}"


def original_dst(sock: socket.socket) -> str:
    """What SO_ORIGINAL_DST or, over IPv6, IP6T_SO_ORIGINAL_DST answers; ``-`` where it fails."""
    with contextlib.suppress(OSError):
        port, ip = struct.unpack_from("!2xH4s", sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
        return f"{ipaddress.IPv4Address(ip)} {port}"
    with contextlib.suppress(OSError):
        port, ip = struct.unpack_from("!2xH4x16s", sock.getsockopt(SOL_IPV6, SO_ORIGINAL_DST, 28))
        return f"{ipaddress.IPv6Address(ip)} {port}"
    return "-"


class Namer:
    """A proxy of one thread: it tells each client the original destination and its socket's name, and closes.

    Its listener belongs to the cgroup in which it is made.

    :param reads: int, bytes that it reads from each client before.
    :param shared: whether other listeners may have the same port.
    :ivar peers: addresses of its clients.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, reads: int = 0, shared: bool = False) -> None:
        self._reads, self.told, self.peers = reads, 0, []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        dual = address == "::"
        more = {"family": family, "dualstack_ipv6": dual, "backlog": 4096, "reuse_port": shared}
        self.listener = socket.create_server((address, port), **more)
        self.port = self.listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def thread_id(self) -> int:
        """As the kernel has it."""
        return self._thread.native_id

    def _serve(self) -> None:
        self.listener.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                if any(key.fileobj is self._woken for key, _events in selector.select(60)):
                    return
                with contextlib.suppress(OSError):
                    while True:
                        self._tell(self.listener.accept()[0])

    def _tell(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(20)
            self.peers.append(end_of(client.getpeername()).split()[0])
            client.recv(self._reads, socket.MSG_WAITALL)
            client.sendall(f"{original_dst(client)}|{end_of(client.getsockname())}\n".encode())
            self.told += 1

    def close(self) -> None:
        if self._wake.fileno() < 0:
            return
        self._wake.send(b"x")
        self._thread.join()
        for each in (self.listener, self._wake, self._woken):
            each.close()

    def __enter__(self) -> Namer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def dissolve(client: socket.socket) -> None:
    """End its connection, as connect() with AF_UNSPEC does; it can connect again."""
    nobody = (ctypes.c_char * 16)()
    assert ctypes.CDLL(None, use_errno=True).connect(client.fileno(), nobody, 16) == 0


def told(client: socket.socket) -> List[str]:
    """What the proxy was told: original destination and name of its socket."""
    text = b""
    while True:
        part = client.recv(1000)
        if not part:
            return text.decode().strip().split("|")
        text += part


class Interception:
    """Loaded, pinned and attached programs; ``apps`` and ``proxy`` are cgroups below the test's own."""

    def __init__(self, cgroup: Path, pin_dir: Path) -> None:
        self.pin_dir = pin_dir
        self.apps, self.proxy = cgroup / "apps", cgroup / "proxy"

    def as_app(self) -> ContextManager[None]:
        """Inside the context, this process is one of those that are intercepted."""
        return inside(self.apps)

    def as_proxy(self) -> ContextManager[None]:
        return inside(self.proxy)

    def rule(self, *to, **values) -> intercept.Rule:
        """A rule from ``apps`` to addresses with ports; a port alone is that of 127.0.0.1 and ::1."""
        ends = [intercept.End("127.0.0.1", to[0]), intercept.End("::1", to[0])] if isinstance(to[0], int) else list(to)
        root = str(cgroup2_mount())
        known = {
            "apps": os.stat(self.apps).st_ino,
            "apps_level": intercept_live.level_of(str(self.apps), root),
            "proxy": os.stat(self.proxy).st_ino,
            "proxy_level": intercept_live.level_of(str(self.proxy), root),
            "slot": 1,
            **values,
        }
        return intercept.Rule(to=tuple(ends), **known)

    @contextlib.contextmanager
    def without(self, program: str):
        """Inside the context, this program is not attached anywhere."""
        (attach_type,) = (hook.attach_type for hook in hooks.HOOKS if hook.section.endswith("/" + program))
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(libbpf.get(str(self.pin_dir / program)))
            for group in (self.apps, self.proxy):
                number = stack.enter_context(libbpf.Fd(os.open(group, os.O_RDONLY)))
                libbpf.detach(held, number, attach_type)
                stack.callback(libbpf.attach, held, number, attach_type, libbpf.F_ALLOW_MULTI)
            yield

    def begin_anew(self) -> None:
        """No rules, nothing counted, nothing remembered."""
        wait_for(lambda: not self.pending(), 20, "a connection of an earlier test has left something behind")
        pin_dir = str(self.pin_dir)
        with libbpf.Map.open_pin(f"{pin_dir}/intercept_state") as state:
            state.update(bytes(4), bytes(intercept.STATE.size))
        with libbpf.Map.open_pin(f"{pin_dir}/reached") as reached:
            for key in list(reached.keys()):
                reached.delete(key)
        intercept_live.reset_counters(pin_dir, range(1 + intercept.MAX_RULES))
        intercept_live.trace_until(pin_dir, 0)

    def write(self, *rules: intercept.Rule) -> None:
        intercept_live.write_rules(str(self.pin_dir), rules)

    def counts(self, slot: Optional[int] = None) -> Dict[str, int]:
        """Event -> how often, of one slot or of all together."""
        found = intercept_live.counters(str(self.pin_dir))
        slots = found.values() if slot is None else [found[slot]]
        return {event.label: sum(one[event.label] for one in slots) for event in intercept.Event}

    def pending(self) -> int:
        return intercept_live.pending(str(self.pin_dir))


@contextlib.contextmanager
def interception(cgroup: Path, pin_dir: Path) -> Iterator[Interception]:
    """The programs at work, with all defaults."""
    own = Interception(cgroup, pin_dir)
    with at_work(own):
        yield own


@contextlib.contextmanager
def at_work(own: Interception, **entries: int) -> Iterator[None]:
    """Compile, load, pin and attach; take it all away at the end.

    :param entries: map -> how many elements it is to have.
    """
    own.pin_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        loadable = stack.enter_context(loader.Loadable(compiled(SOURCE), "intercept", str(SOURCE), {}, entries))
        loadable.load({})
        for found in (*map(loadable.map, loadable.maps), *map(loadable.program, loadable.programs)):
            libbpf.pin(found, str(own.pin_dir / found.name))
            stack.callback((own.pin_dir / found.name).unlink)
        for group in (own.apps, own.proxy):
            group.mkdir()
            number = stack.enter_context(libbpf.Fd(os.open(group, os.O_RDONLY)))
            for name, program in loadable.programs.items():
                hook = hooks.of_section(program.section)
                if hook.kind != hooks.CGROUP:
                    continue
                held = stack.enter_context(libbpf.get(str(own.pin_dir / name)))
                libbpf.attach(held, number, hook.attach_type, libbpf.F_ALLOW_MULTI)
                stack.callback(libbpf.detach, held, number, hook.attach_type)
        yield
