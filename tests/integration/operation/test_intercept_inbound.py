# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections from outside on a host that is set up: taken, drifted from, restored, rolled back, removed."""

from __future__ import annotations

import os
import shutil
import socket

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept_doors, intercept_live
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import netns as namespaces
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import restore
from support.intercepting import Intercepting
from support.interception import told
from support.netns import WIRE, netns, wire


@pytest.fixture
def outside():
    """A network namespace that this process is in, and one on the other end of a wire."""
    with netns() as host, netns() as world:
        wire(host, world)
        with host.entered():
            yield world


def test_connections_from_outside(managed, outside):
    """The proxy listens before anything knows that it is to get them."""
    managed.enable_here()
    alone, address = Intercepting(managed), WIRE[0][0]
    alone.load()
    rule = alone.rule(15001, inbound=[80])

    def asked() -> str:
        with outside.entered():
            client = socket.create_connection((address, 80), timeout=20)
        with client:
            return told(client)[0]

    def nobody_takes_it() -> bool:
        try:
            return not asked()
        except ConnectionRefusedError:
            return True

    with alone.namer(15001):
        assert "inbound is not attached to this network namespace" in alone.write(rule)["msg"]
        alone.take_inbound()
        checked = alone.write(rule, check=True)
        assert nobody_takes_it()
        done = alone.write(rule)
        assert done["changed"], done
        assert done["diff"] == checked["diff"]
        assert asked() == f"{address} 80"
        assert not alone.write(rule, check=True)["changed"]
        assert managed.kinds() == []
        assert "inbound                 1  connections from outside" in managed.ctl("intercepts").stdout

        pins, netns_cookie = managed.places["pin_dir"], namespaces.cookie()
        for key in intercept_doors.listener_keys(netns_cookie, End("127.0.0.1", 15001)):
            intercept_live.strike(pins, key)
        (link_pin,) = managed.sandbox.pin_dir.glob("link_inbound_*")
        with libbpf.get(str(link_pin)) as link:
            attachments.detach_link(libbpf.link_info(link).id)
        assert sorted(managed.kinds()) == ["attachment_missing", "listener_unknown"]
        restore.restore(managed.places["state_dir"])
        assert managed.kinds() == []
        assert asked() == f"{address} 80"

    # As at boot, where the proxy is started afterwards.
    shutil.rmtree(managed.sandbox.pin_dir)
    assert managed.ctl("restore").returncode == 0
    assert managed.kinds() == []
    assert nobody_takes_it()
    with alone.namer(15001):
        assert asked() == f"{address} 80"
        assert alone.write(alone.rule(15001))["changed"]
        assert nobody_takes_it()
        restore.rollback(managed.places["state_dir"])
        assert asked() == f"{address} 80"
        os.unlink(managed.sandbox.state_dir / "current")  # what belongs to the collection is then found by its pins
        managed.disable_here()
        assert nobody_takes_it()
    assert managed.listing() == []
    own = namespaces.inode(namespaces.HERE)
    assert [link for link in attachments.links() if link.netns_ino == own] == []
