# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that pumps random bytes through one connection and tells both ends' SHA-256, as JSON.

usage: pump.py ipv4|ipv6|v4-mapped BYTES
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.collection import map_collection

map_collection()

from ansible_collections.ebpf.sockredir.plugins.module_utils.host.proof import PAIRS, bytes_sent_by_tcp

_TIMEOUT = 60
_SIZES = (1, 100, 1448, 4096, 65536, 250_000, 1 << 20)


def main(name: str, size: int) -> None:
    pair = next(pair for pair in PAIRS if pair.name == name)
    with socket.socket(pair.listen_family) as listener, socket.socket(pair.family) as client:
        if pair.listen_family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((pair.listen, 0))
        listener.listen(1)
        client.connect((pair.connect, listener.getsockname()[1]))
        server, _address = listener.accept()
        server.settimeout(_TIMEOUT)
        client.settimeout(_TIMEOUT)
        received = hashlib.sha256()
        reader = threading.Thread(target=_drain, args=(server, received))
        reader.start()
        sent = _pump(client, size)
        client.shutdown(socket.SHUT_WR)
        reader.join()
        by_tcp = bytes_sent_by_tcp(client)  # only now nothing waits to be sent any more
        server.close()
    print(json.dumps({"sent": sent.hexdigest(), "received": received.hexdigest(), "by_tcp": by_tcp, "bytes": size}))


def _pump(client: socket.socket, size: int) -> hashlib._Hash:
    digest = hashlib.sha256()
    turn = 0
    while size:
        chunk = os.urandom(min(size, _SIZES[turn % len(_SIZES)]))
        client.sendall(chunk)
        digest.update(chunk)
        size -= len(chunk)
        turn += 1
    return digest


def _drain(server: socket.socket, digest: hashlib._Hash) -> None:
    buffer = bytearray(1 << 20)
    while True:
        count = server.recv_into(buffer)
        if not count:
            return
        digest.update(memoryview(buffer)[:count])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
