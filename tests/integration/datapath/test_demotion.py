# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files by sendfile: redirected as answers of some pieces where streams of such pieces are, and no longer ones."""

from __future__ import annotations

import os

import pytest
from support.datapath import read_exactly

MIB = 1 << 20
PIECE = 64 << 10  # of sendfile
CONTENT = os.urandom(MIB)


@pytest.mark.parametrize(
    ("below", "files", "answered", "state"),
    [
        (PIECE, 6, True, "redirected"),
        (PIECE, 4, False, "demoted"),
        (PIECE + 1, 1, True, "demoted"),
        (0, 4, False, "redirected"),
    ],
)
def test_files(lab, tmp_path, below, files, answered, state):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    lab.redirection.set(demote_below=below, demote_after=32)
    client, server = lab.pair()
    with path.open("rb") as file:
        for _file in range(files):
            sent = 0
            while sent < MIB:
                sent += os.sendfile(client.fileno(), file.fileno(), sent, MIB - sent)
            assert read_exactly(server, MIB) == CONTENT
            if answered:
                server.sendall(b"thanks")
                assert read_exactly(client, 6) == b"thanks"
    assert lab.redirection.flow(server.getsockname()[1])[0].state == state
