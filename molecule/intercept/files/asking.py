# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""asking.py HOST PORT: requests over new connections, and over one that stays open, until SIGTERM.

Then a report in JSON on standard output: how many requests were answered, refused, cut off, and what else happened.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from typing import Dict, Tuple

TIMEOUT_S = 30
REQUEST = b"GET /answer HTTP/1.1\r\nHost: there\r\n\r\n"
ANSWER = b"it is the server\n"

stop = threading.Event()
report: Dict[str, int] = {"answered": 0, "refused": 0, "cut": 0, "other": 0, "lasting": 0, "elsewhere": 0}


def answered(connection: socket.socket) -> bool:
    """Whether one request has its whole answer; the end of the connection is none."""
    connection.sendall(REQUEST)
    found = b""
    while not found.endswith(ANSWER):
        part = connection.recv(4096)
        if not part:
            return False
        found += part
    return True


def ask(address: Tuple[str, int]) -> str:
    try:
        with socket.create_connection(address, TIMEOUT_S) as connection:
            if connection.getpeername()[:2] != address:
                return "elsewhere"
            return "answered" if answered(connection) else "cut"
    except ConnectionRefusedError:
        return "refused"
    except (ConnectionResetError, BrokenPipeError):
        return "cut"
    except OSError:
        return "other"


def stay(address: Tuple[str, int]) -> None:
    """Requests on one connection as long as it lasts."""
    with socket.create_connection(address, TIMEOUT_S) as connection:
        while not stop.is_set():
            try:
                if not answered(connection):
                    return
            except OSError:
                return
            report["lasting"] += 1
            time.sleep(0.05)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_signal: stop.set())
    address = (sys.argv[1], int(sys.argv[2]))
    threading.Thread(target=stay, args=(address,), daemon=True).start()
    while not stop.is_set():
        report[ask(address)] += 1
        time.sleep(0.02)
    json.dump(report, sys.stdout)


main()
