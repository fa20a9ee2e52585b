# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each server port gains or would lose through redirection, from what the programs have counted."""

from __future__ import annotations

import struct
from typing import Any, Dict, List, Mapping, Optional, Set

from ..calibration import record
from ..datapath import live
from ..host import processes, sockets
from ..learn import speeds
from . import port_verdict

_LISTENING = 1 << 10
# struct inet_diag_msg: family, state, timer, retransmits, then the socket's own port
_PORT = struct.Struct("!4xH")
_INODE = struct.Struct("=68xI")


def report(pin_dir: str, calibration: Mapping[str, Any], programs: bool = True) -> Optional[List[Dict[str, Any]]]:
    """A verdict for each port, see :func:`.port_verdict.ports`; None if there is no such map.

    :param calibration: what the manifest says was measured on this host; may be empty.
    :param programs: whether to name who listens, for which every process is looked at.
    :raises SockredirError: a map is of another layout, or may not be read.
    """
    ended = live.ports(pin_dir)
    if ended is None:
        return None
    found = live.read_settings(pin_dir)
    leave_after = found.settings.leave_after if found and found.settings else 0
    known = speeds.of_record(calibration, speeds.ENABLED) if calibration else None
    host = port_verdict.Host(leave_after, known or speeds.ESTIMATE)
    opened = port_verdict.open_by_port(live.flows(pin_dir) or [])
    listeners = listening(set(ended) | set(opened)) if programs else {}
    return port_verdict.ports(ended, opened, listeners, host)


def of_document(document: Mapping[str, Any], programs: bool = True) -> Optional[List[Dict[str, Any]]]:
    """The same for a host with a manifest."""
    return report(document["pin_dir"], document.get(record.SECTION) or {}, programs)


def listening(wanted: Set[int]) -> Dict[int, List[str]]:
    """Names of the programs that listen on ports, in all network namespaces; without ports, nothing is looked up."""
    if not wanted:
        return {}
    inodes: Dict[int, int] = {}
    for message in sockets.dump(_LISTENING):
        port = _PORT.unpack_from(message)[0]
        if port in wanted:
            inodes[_INODE.unpack_from(message)[0]] = port
    owners = processes.socket_owners(set(inodes))
    found: Dict[int, Set[str]] = {}
    for inode, owner in owners.items():
        found.setdefault(inodes[inode], set()).add(owner.comm)
    return {port: sorted(names) for port, names in found.items()}
