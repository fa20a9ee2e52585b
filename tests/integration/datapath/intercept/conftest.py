# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of interception share: the programs attached to cgroups of programs and of a proxy."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from support.harness import Harness
from support.host import Sandbox
from support.interception import Namer, interception
from support.proxies import Running


class Lab(Harness):
    """:param icept: :class:`support.interception.Interception`."""

    def __init__(self, sandbox: Sandbox, icept) -> None:
        super().__init__(sandbox)
        self.icept = icept

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


@contextlib.contextmanager
def open_lab(host, **entries):
    with interception(host.cgroup, host.pin_dir, **entries) as icept:
        own = Lab(host, icept)
        try:
            yield own
        finally:
            own.close()


@pytest.fixture
def opened():
    """Of interception, for the fixtures of the folder above."""
    return open_lab


@pytest.fixture
def running(lab, tmp_path):
    os.chmod(tmp_path, 0o755)
    return Running(lab, tmp_path)
