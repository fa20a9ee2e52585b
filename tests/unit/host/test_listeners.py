# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens, from the kernel's table."""

from __future__ import annotations

import socket
import sys

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import listeners

LITTLE = pytest.mark.skipif(sys.byteorder != "little", reason="the sample is of a little-endian host")
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0100007F:3A9A 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2
   2: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 3
   3: 0000000000000000FFFF00000200007F:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4
"""


@LITTLE
def test_the_table():
    assert listeners.parse(TABLE.splitlines()) == {("127.0.0.1", 15001), ("::1", 80), ("127.0.0.2", 81)}


def test_this_host():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname() in listeners.listeners()


@pytest.mark.parametrize(
    ("end", "known", "heard"),
    [
        ("127.0.0.1:80", {("127.0.0.1", 80)}, True),
        ("127.0.0.1:80", {("127.0.0.1", 81)}, False),
        ("127.0.0.1:80", {("0.0.0.0", 80)}, True),
        ("127.0.0.1:80", {("::", 80)}, True),
        ("[::1]:80", {("::", 80)}, True),
        ("[::1]:80", {("0.0.0.0", 80)}, False),
        ("[::1]:80", {("::1", 80)}, True),
    ],
)
def test_who_is_heard(end, known, heard):
    assert listeners.is_heard(end, known) is heard
