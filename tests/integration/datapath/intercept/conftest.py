# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of interception share: the programs attached to cgroups of programs and of a proxy."""

from __future__ import annotations

import contextlib
import functools
import os
import socket

import pytest
from support.harness import Harness
from support.host import Sandbox, sandbox
from support.interception import Interception, Namer, at_work
from support.proxies import Running
from support.tracing import records


class Intercepted(Harness, Interception):
    """Programs whose connections are intercepted, and their proxy."""

    def __init__(self, sandbox: Sandbox) -> None:
        Harness.__init__(self, sandbox)
        Interception.__init__(self, sandbox.cgroup, sandbox.pin_dir)

    def namer(self, address: str = "127.0.0.1", port: int = 0, reads: int = 0) -> Namer:
        with self.as_proxy():
            return self.keep(Namer(address, port, reads))

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """Made by a program whose connections are intercepted."""
        with self.as_app():
            return self.keep(socket.socket(family, kind, protocol))

    def connect(self, address: str, port: int, family=None) -> socket.socket:
        known = family or (socket.AF_INET6 if ":" in address else socket.AF_INET)
        client = self.socket(known)
        with self.as_app():
            client.connect((address, port))
        return client


@contextlib.contextmanager
def at_work_on(host: Sandbox, **entries: int):
    own = Intercepted(host)
    with at_work(own, **entries), contextlib.closing(own):
        yield own


@pytest.fixture(scope="module")
def attached(tmp_path_factory):
    """A sandbox with the programs attached, as they are, for the tests of a file."""
    with sandbox(tmp_path_factory.mktemp("interception")) as own, at_work(Interception(own.cgroup, own.pin_dir)):
        yield own


@pytest.fixture
def intercepted(attached):
    """The programs as if they had just been loaded."""
    own = Intercepted(attached)
    own.begin_anew()
    with contextlib.closing(own):
        yield own


@pytest.fixture
def intercepted_with(host):
    """The programs loaded with other map sizes; called as a context manager."""
    return functools.partial(at_work_on, host)


@pytest.fixture
def trace(intercepted):
    """What is told of it."""
    with records(intercepted.pin_dir) as own:
        own.ask()
        yield own


@pytest.fixture
def running(intercepted, tmp_path):
    os.chmod(tmp_path, 0o755)
    return Running(intercepted, tmp_path)
