# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send back what clients send, on the listener that systemd made (sd_listen_fds(3))."""

import socket

listener = socket.socket(fileno=3)
while True:
    with listener.accept()[0] as peer:
        asked = peer.recv(64)
        while asked:
            peer.sendall(asked)
            asked = peer.recv(64)
