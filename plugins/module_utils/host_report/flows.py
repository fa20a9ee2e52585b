# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live connections: each end with its process and the state of its next message."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple

from ..datapath import layout, live
from ..host import processes, sockets
from ..host.processes import Process

Record = Tuple[layout.Key, layout.Flow]


def report(pin_dir: str, most: int) -> Optional[Dict[str, Any]]:
    """How many connections there are, and the oldest of them at most ``most``; None if there is no map of them.

    :raises SockredirError: the map is of another layout, or may not be read.
    """
    records = live.flows(pin_dir)
    if records is None:
        return None
    return {"open": len(records), "connections": connections(records[:most])}


def connections(records: List[Record]) -> List[Dict[str, Any]]:
    """Each connection with its processes, where those can be found out."""
    owners = _owners(records)
    return [_connection(record, owners) for record in records]


def _owners(records: List[Record]) -> Dict[int, Process]:
    """The process of each socket, by the socket's cookie."""
    cookies = {side.cookie for _key, flow in records for side in flow.sides if side.cookie}
    if not cookies:
        return {}
    inodes = {cookie: inode for cookie, inode in sockets.inodes().items() if cookie in cookies and inode}
    owners = processes.socket_owners(set(inodes.values()))
    return {cookie: owners[inode] for cookie, inode in inodes.items() if inode in owners}


def _connection(record: Record, owners: Dict[int, Process]) -> Dict[str, Any]:
    key, flow = record
    ends = ((key.local, key.local_port), (key.remote, key.remote_port))
    sides = [_side(end, side, owners.get(side.cookie)) for end, side in zip(ends, flow.sides)]
    return {
        "netns": key.netns,
        "age": round((time.monotonic_ns() - flow.opened) / 1e9, 3),
        "sides": sorted(sides, key=lambda side: side["server"]),
    }


def _side(end: Tuple[str, int], side: layout.Side, owner: Optional[Process]) -> Dict[str, Any]:
    return {
        "address": end[0],
        "port": end[1],
        "server": side.server,
        "alive": bool(side.cookie),
        "left": side.left,
        "pid": owner.pid if owner else None,
        "comm": owner.comm if owner else None,
        "cookie": side.cookie,
        "state": side.state,
        "messages": side.messages,
        "bytes": side.bytes,
        "unread": side.unread,
    }
