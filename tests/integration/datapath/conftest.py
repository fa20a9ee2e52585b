# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the data path share: the programs attached, and connections in and out of their reach."""

from __future__ import annotations

import contextlib
import functools
import socket

import pytest
from support import datapath
from support.harness import Harness
from support.host import Sandbox


class Lab(Harness):
    """The programs on a cgroup of the test's own, and sockets made in it."""

    def __init__(self, sandbox: Sandbox, redirection: datapath.Redirection) -> None:
        super().__init__(sandbox)
        self.redirection = redirection

    def listener(self, address: str = "127.0.0.1", **options) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        dual = address == "::"
        with self.inside():
            return self.keep(
                socket.create_server((address, 0), family=family, dualstack_ipv6=dual, backlog=512, **options)
            )

    def connect(self, listener: socket.socket, address: str = "127.0.0.1", source=None) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.inside():
            client = self.keep(socket.socket(family))
            if source:
                client.bind(source)
            client.connect((address, listener.getsockname()[1]))
            return client

    def pair(self, address: str = "127.0.0.1", server: str = ""):
        """A connected pair: (client, server)."""
        listener = self.listener(server or address)
        client = self.connect(listener, address)
        return client, self.keep(listener.accept()[0])


@contextlib.contextmanager
def open_lab(host, **options):
    with datapath.redirection(host.cgroup, host.pin_dir, host.state_dir, **options) as redirection:
        redirection.set()
        lab = Lab(host, redirection)
        try:
            yield lab
        finally:
            lab.close()


@pytest.fixture
def lab(host):
    """The programs as they are, with all defaults."""
    with open_lab(host) as own:
        yield own


@pytest.fixture
def lab_with(host):
    """The programs loaded with other sources or map sizes; called as a context manager."""
    return functools.partial(open_lab, host)
