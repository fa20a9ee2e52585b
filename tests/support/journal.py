# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for systemd's journal: a datagram socket that is read as the native protocol is described."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Dict, List


class Journal:
    """Reads entries; a context, for its socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __enter__(self) -> Journal:
        self._socket.bind(str(self.path))
        return self

    def __exit__(self, *_raised: object) -> None:
        self._socket.close()

    def entries(self) -> List[Dict[str, str]]:
        """What has come since the last time."""
        found = []
        while True:
            try:
                found.append(_decode(self._socket.recv(1 << 20)))
            except BlockingIOError:
                return found


def _decode(data: bytes) -> Dict[str, str]:
    fields: Dict[str, str] = {}
    while data:
        line, _end, data = data.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if not is_short:
            (length,) = struct.unpack_from("<Q", data)
            value, end, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
            assert end == b"\n"
        fields[name.decode("ascii")] = value.decode("utf-8", "surrogateescape")
    return fields
