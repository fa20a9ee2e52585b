# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what FIONREAD says of 100 unread bytes on a local connection."""

import array
import fcntl
import select
import socket
import termios

with socket.create_server(("127.0.0.1", 0)) as listener:
    reader = socket.create_connection(listener.getsockname())
    writer = listener.accept()[0]
writer.sendall(bytes(100))
select.select([reader], [], [], 30)
count = array.array("i", [0])
fcntl.ioctl(reader, termios.FIONREAD, count)
print(count[0])
