# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of interception share: the programs attached to cgroups of programs and of a proxy."""

from __future__ import annotations

import contextlib
import socket

import pytest
from support.interception import Namer, interception


class Lab:
    """:param icept: :class:`support.interception.Interception`."""

    def __init__(self, icept) -> None:
        self.icept = icept
        self._stack = contextlib.ExitStack()

    def keep(self, thing):
        """Closed when the test ends."""
        if isinstance(thing, socket.socket):
            thing.settimeout(20)
        return self._stack.enter_context(thing)

    def namer(self, address: str = "127.0.0.1", port: int = 0, reads: int = 0) -> Namer:
        with self.icept.as_proxy():
            return self.keep(Namer(address, port, reads))

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM) -> socket.socket:
        """Made by a program whose connections are intercepted."""
        with self.icept.as_app():
            return self.keep(socket.socket(family, kind))

    def connect(self, address: str, port: int, family=None) -> socket.socket:
        known = family or (socket.AF_INET6 if ":" in address else socket.AF_INET)
        client = self.socket(known)
        with self.icept.as_app():
            client.connect((address, port))
        return client

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def open_lab(host, **entries):
    with interception(host.cgroup, host.pin_dir, **entries) as icept:
        own = Lab(icept)
        try:
            yield own
        finally:
            own.close()


@pytest.fixture
def lab(host):
    with open_lab(host) as own:
        yield own


@pytest.fixture
def lab_with(host):
    """With other sizes of maps; called as a context manager."""

    def make(**entries):
        return open_lab(host, **entries)

    return make
