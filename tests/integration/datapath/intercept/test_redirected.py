# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hop between a program and its proxy is redirected, when both are below the accelerated cgroup."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from support.datapath import read_exactly, redirection
from support.interception import FAR4, FAR6, original_dst

SIZE = 500_000


@pytest.fixture
def redirected(tmp_path, intercepted):
    """The data path's programs on the cgroup above those of the programs and of the proxy."""
    sandbox = intercepted.sandbox
    with redirection(sandbox.cgroup, sandbox.bpffs / "redirection", tmp_path / "state") as own:
        own.set()
        yield own


@pytest.mark.parametrize("asked", [FAR4, FAR6, f"::ffff:{FAR4}"], ids=["ipv4", "ipv6", "v4-mapped"])
def test_an_intercepted_connection_is_redirected(intercepted, redirected, asked):
    with intercepted.as_proxy():
        listener = intercepted.keep(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    intercepted.write(intercepted.rule(listener.getsockname()[1]))
    client = intercepted.connect(asked, 80)
    server = intercepted.keep(listener.accept()[0])
    assert original_dst(server) == f"{asked.replace('::ffff:', '')} 80"
    sent = os.urandom(SIZE)
    for one, other in ((client, server), (server, client)):
        writer = threading.Thread(target=one.sendall, args=(sent,))
        writer.start()
        assert read_exactly(other, SIZE) == sent
        writer.join()
    assert redirected.bytes("redirected") == 2 * SIZE
    client.close()
    server.close()
    redirected.wait_until_empty()
    assert intercepted.pending() == 0
