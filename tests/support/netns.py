# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace for one test, whose loopback device carries no other bytes."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import uuid
from typing import Iterator, List

_CLONE_NEWNET = 0x40000000


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

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is there meanwhile: so are the sockets that it makes, also later."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{self.name}", "rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def lo_bytes(self) -> int:
        """What the loopback device has sent so far."""
        lines = self.run("cat", "/proc/self/net/dev").splitlines()
        return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


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


#: Addresses of the two ends of :func:`wire`, IPv4 and IPv6.
WIRE = (("192.0.2.1", "2001:db8:2::1"), ("192.0.2.2", "2001:db8:2::2"))


def wire(one: Netns, other: Netns) -> None:
    """A pair of veth devices between two namespaces; it goes with them."""
    ends = ("netns", one.name, "type", "veth", "peer", "name", "wire", "netns", other.name)
    subprocess.run(["ip", "link", "add", "wire", *ends], check=True)
    for end, (ipv4, ipv6) in zip((one, other), WIRE):
        end.run("ip", "address", "add", f"{ipv4}/24", "dev", "wire")
        end.run("ip", "address", "add", f"{ipv6}/64", "dev", "wire", "nodad")
        end.run("ip", "link", "set", "wire", "up")
