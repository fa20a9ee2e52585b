# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""4000 requests to echo.py, one after the other."""

import socket

with socket.create_connection(("127.0.0.1", 7777), timeout=60) as peer:
    for number in range(4000):
        asked = b"%8d" % number
        peer.sendall(asked)
        if peer.recv(64) != asked:
            raise SystemExit(f"answer {number} is wrong")
