# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TCP sockets that there are now, as far as learning asks: who listens, and what is connected."""

from __future__ import annotations

import struct
from typing import Container, Dict, Iterable, Iterator, Mapping, NamedTuple, Optional, Set

from ..host import processes, sockets
from .verdict import Silent

_ESTABLISHED, _LISTEN = 1, 10
_CHOSEN = "/proc/sys/net/ipv4/ip_local_port_range"
# struct inet_diag_msg: its ports and its inode
_PORTS = struct.Struct("!4xHH")
_INODE = struct.Struct("=68xI")


class End(NamedTuple):
    """A socket.

    :ivar cgroup: int, the id of its cgroup; None if the kernel does not say.
    """

    port: int
    peer_port: int
    cgroup: Optional[int]
    inode: int


def listening() -> Dict[int, int]:
    """The ports on which somebody listens, in whatever network namespace, each with the inode of one socket."""
    return {end.port: end.inode for end in _ends(1 << _LISTEN)}


def silent(living: Mapping[int, int], scope: Optional[Container[int]]) -> Dict[int, Silent]:
    """Connections at servers' ends that nothing was counted of, by port.

    :param living: how many there are that something was counted of, by port.
    :param scope: ids of the cgroups in question; None: all.
    """
    listeners = listening()
    ends = [end for end in _ends(1 << _ESTABLISHED) if end.port in listeners and end.peer_port not in listeners]
    found: Dict[int, int] = {}
    for end in ends:
        if scope is None or end.cgroup in scope:
            found[end.port] = found.get(end.port, 0) + 1
    left = {port: count - living.get(port, 0) for port, count in found.items() if count > living.get(port, 0)}
    owners = processes.socket_owners({listeners[port] for port in left})
    return {port: Silent(count, _name(owners.get(listeners[port]))) for port, count in left.items()}


def passing(ports: Iterable[int]) -> Set[int]:
    """Those that the kernel had chosen for a listener that is gone, and will not choose again."""
    with open(_CHOSEN, encoding="ascii") as text:
        low, high = map(int, text.read().split())
    return {port for port in ports if low <= port <= high} - set(listening())


def _name(owner: Optional[processes.Process]) -> str:
    return owner.comm if owner else ""


def _ends(states: int) -> Iterator[End]:
    for message in sockets.dump(states):
        port, peer_port = _PORTS.unpack_from(message)
        yield End(port, peer_port, sockets.cgroup_of(message), _INODE.unpack_from(message)[0])
