# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection for an interception rule, and which destination arrives at its proxy.

The proxy is not asked: its own socket is, of which this process makes itself a duplicate (pidfd_getfd(2), Linux 5.6).
If nobody listens at the proxy's address, a listener of this process does for the moment.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
import time
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple

from ..datapath.intercept import End
from ..errors import SockredirError
from . import connections, elsewhere, processes
from .listeners import plain

_TIMEOUT = 3.0  # seconds, for connecting, and for the proxy to accept
_LOOK_SECONDS = 0.01
_SO_ORIGINAL_DST = 80  # of ip6tables too
_SOL_IPV6 = 41
_V4_NAME, _V6_NAME = struct.Struct("!2xH4s"), struct.Struct("!2xH4x16s")
_NOBODY = 65534
_GONE = -1


class Case(NamedTuple):
    """:ivar cgroup: str, absolute path: whose connections.
    :ivar proxy_cgroup: str, absolute path: whose listener, if there has to be one.
    :ivar asked: where to connect to.
    :ivar to: where the rule sends it.
    :ivar heard: whether the proxy listens there.
    :ivar proxy_user: id of the user whose processes are the proxy.
    """

    cgroup: str
    proxy_cgroup: str
    asked: End
    to: End
    heard: bool
    proxy_user: Optional[int] = None


def tried(case: Case) -> Dict[str, Any]:
    """Make the connection, and close it.

    :returns: ``by``, who accepted it; ``told``, the destination that arrived, or None if the proxy had closed its
        socket already; ``wrong``, in one line, or None; ``unproved``, why it could not be told, or None.
    """
    found: Dict[str, Any] = {"by": None, "told": None, "wrong": None, "unproved": None}
    try:
        with contextlib.ExitStack() as stack:
            found.update(_tried(case, stack))
    except SockredirError as error:
        found["wrong"] = str(error)
    except OSError as error:
        found["unproved"] = str(error)
    return found


def _tried(case: Case, stack: contextlib.ExitStack) -> Dict[str, Any]:
    listener = None if case.heard else _listener(case, stack)
    apps = stack.enter_context(elsewhere.beneath(case.cgroup))
    client, error = elsewhere.socket_of(apps, lambda: _connected(case))
    stack.enter_context(client)
    if error:
        return {"wrong": _refusal(case, error)}
    reached = _reached(client)
    if reached is not None and reached != case.to:
        return {"wrong": f"a connection to {case.asked.text} was not intercepted: it went to {reached.text}"}
    peer = _end(client.getpeername())
    if peer != case.asked:
        return {"wrong": f"a program that connects to {case.asked.text} is told that it is at {peer.text}"}
    if listener is not None:
        listener.settimeout(_TIMEOUT)
        return _judged(case, stack.enter_context(listener.accept()[0]), "a listener of its own")
    return _at_the_proxy(case, client, stack)


def _listener(case: Case, stack: contextlib.ExitStack) -> socket.socket:
    proxy = stack.enter_context(elsewhere.beneath(case.proxy_cgroup))
    return stack.enter_context(elsewhere.socket_of(proxy, lambda: (_listening(case.to), 0))[0])


def _listening(to: End) -> socket.socket:
    made = socket.socket(_family(to))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((to.address, to.port))
    made.listen(1)
    return made


def _family(end: End) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in end.address else socket.AF_INET


def _connected(case: Case) -> Tuple[socket.socket, int]:
    if case.proxy_user == os.geteuid():
        os.setuid(_NOBODY)
    client = socket.socket(_family(case.asked))
    client.settimeout(_TIMEOUT)
    try:
        return client, client.connect_ex((case.asked.address, case.asked.port))
    except socket.timeout:
        return client, errno.ETIMEDOUT


def _refusal(case: Case, error: int) -> str:
    asked, to = case.asked.text, case.to.text
    if error == errno.EPERM:
        return (
            f"a connection to {asked} was refused (EPERM): the programs take it for the proxy's own, or have no memory"
        )
    if error == errno.ECONNREFUSED:
        return f"a connection to {asked} was refused: nobody took it at {to}, or it was not intercepted"
    return f"a connection to {asked} was not intercepted, and failed: {os.strerror(error)}"


def _reached(client: socket.socket) -> Optional[End]:
    """Where it is connected to, as the kernel has it and not as the program is told."""
    mine = _end(client.getsockname())
    return next((End(*each.remote) for each in connections.established() if each.local == mine), None)


def _at_the_proxy(case: Case, client: socket.socket, stack: contextlib.ExitStack) -> Dict[str, Any]:
    inode = _GONE
    for inode in _accepted(case.to, _end(client.getsockname())):
        holder = processes.socket_owners({inode}).get(inode) if inode > 0 else None
        taken = _duplicate(holder.pid, inode) if holder else None
        if holder and taken:
            stack.enter_context(taken)
            return _judged(case, taken, f"{holder.comm} (process {holder.pid})")
    if inode == 0:
        return {"unproved": f"the proxy has not accepted the connection within {_TIMEOUT:.0f} s"}
    return {"by": "the proxy, by the counter claimed"}


def _accepted(to: End, client: Tuple[str, int]) -> Iterator[int]:
    """Inode of the proxy's socket, again and again: 0 until it has been accepted, at last _GONE if it is closed."""
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        ends = [each for each in connections.established() if (each.local, each.remote) == (to, client)]
        if not ends:
            yield _GONE
            return
        yield ends[0].inode
        time.sleep(_LOOK_SECONDS)


def _duplicate(pid: int, inode: int) -> Optional[socket.socket]:
    """Another process's socket; None if it has closed it, or may not be asked."""
    with contextlib.suppress(OSError):
        number = processes.socket_of(inode, [pid])
        return None if number is None else socket.socket(fileno=number)
    return None


def _judged(case: Case, taken: socket.socket, by: str) -> Dict[str, Any]:
    told = original_destination(taken)
    if told == case.asked:
        return {"by": by, "told": told.text}
    instead = f"{told.text} instead of {case.asked.text}" if told else f"no destination for {case.asked.text}"
    return {"by": by, "told": told.text if told else None, "wrong": f"{by} is told {instead}"}


def original_destination(taken: socket.socket) -> Optional[End]:
    """What SO_ORIGINAL_DST, or over IPv6 that of ip6tables, answers to a proxy; None if it fails."""
    for level, form, size in ((socket.SOL_IP, _V4_NAME, 16), (_SOL_IPV6, _V6_NAME, 28)):
        with contextlib.suppress(OSError):
            port, address = form.unpack_from(taken.getsockopt(level, _SO_ORIGINAL_DST, size))
            return End(plain(address), port)
    return None


def _end(name: Tuple[Any, ...]) -> End:
    return End(plain(ipaddress.ip_address(name[0]).packed), name[1])
