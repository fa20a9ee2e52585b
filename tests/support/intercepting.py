# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A managed host whose connections are intercepted."""

from __future__ import annotations

import socket
from pathlib import Path

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept_live
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import netns
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import change as attachment
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source

from .host import inside
from .interception import FAR4, SOURCE, Namer, told
from .module import run_module


class Intercepting:
    """A host with the programs of interception attached to two cgroups, and a proxy."""

    def __init__(self, managed) -> None:
        self.managed = managed
        self.apps, self.proxy = managed.sandbox.cgroup / "apps", managed.sandbox.cgroup / "proxy"

    def load(self, source: Path = SOURCE) -> None:
        """The programs of a source, and attached to both cgroups."""
        places = self.managed.places
        request = program_source.Options("intercept", **places, src=str(source))
        for name in set(program.present(request).programs) - {"inbound"}:
            for group in (self.proxy, self.apps):
                wanted = Wanted(f"{places['pin_dir']}/{name}", "cgroup", str(group), create_cgroup=True)
                attachment.ensure(wanted, places["state_dir"])

    def take_inbound(self) -> None:
        """Of this network namespace."""
        wanted = Wanted(f"{self.managed.places['pin_dir']}/inbound", "netns", netns.HERE)
        attachment.ensure(wanted, self.managed.places["state_dir"])

    def rule(self, port: int, **values):
        return {"name": "web", "cgroup": str(self.apps), "proxy_cgroup": str(self.proxy), "to": [port], **values}

    def write(self, *rules, check: bool = False, **options):
        return run_module("sockredir_intercept", {"rules": list(rules), **self.managed.places, **options}, check=check)

    def held(self):
        return intercept_live.read_rules(self.managed.places["pin_dir"])

    def connect(self) -> socket.socket:
        """A connection of an application."""
        with inside(self.apps):
            return socket.create_connection((FAR4, 80), timeout=20)

    def namer(self, port: int = 0, reads: int = 0) -> Namer:
        """The proxy."""
        with inside(self.proxy):
            return Namer(port=port, reads=reads)

    def asked(self) -> str:
        """What the proxy is told of a connection of an application."""
        with self.connect() as client:
            return told(client)[0]
