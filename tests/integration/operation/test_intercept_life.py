# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host that intercepts goes through: reboot, rollback, upgrade, removal."""

from __future__ import annotations

import os
import shutil
import socket

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import restore
from support.connecting import Connecting, direct_server
from support.host import inside
from support.intercepting import Intercepting
from support.interception import FAR4, SOURCE, told


@pytest.fixture
def alone(managed):
    """A host for one test that takes it apart."""
    managed.enable_here()
    own = Intercepting(managed)
    own.load()
    return own


@pytest.fixture
def proxy(alone):
    with alone.namer() as own:
        yield own


def test_all_of_it_comes_back_after_a_reboot(alone, proxy):
    """Pins and cgroups are gone, as after one."""
    managed = alone.managed
    alone.write(alone.rule(proxy.port))
    port = proxy.port
    proxy.close()
    shutil.rmtree(managed.sandbox.pin_dir)
    for group in (alone.apps, alone.proxy):
        os.rmdir(group)
    assert managed.ctl("restore").returncode == 0
    assert managed.kinds() == []
    with alone.namer(port):
        assert alone.asked() == f"{FAR4} 80"


def test_rollback(alone, proxy):
    managed = alone.managed
    alone.write(alone.rule(proxy.port))
    first = alone.held()
    open_change = alone.rule(proxy.port, ports=["80"])
    assert alone.write(open_change, commit=False)["changed"]
    assert not alone.write(open_change, commit=False)["changed"]
    assert managed.kinds() == ["unfinished"]
    restore.rollback(managed.places["state_dir"])
    assert alone.held() == first
    assert managed.kinds() == []
    alone.write(open_change, commit=False)
    assert alone.write(open_change)["changed"], "it makes the change final"
    restore.rollback(managed.places["state_dir"])
    assert alone.held() == first
    assert managed.kinds() == []


def test_an_upgrade_and_its_rollback_while_programs_connect(alone, proxy, tmp_path):
    """Each connection gets to the proxy, which is told its destination; one that stands goes on."""
    source = tmp_path / "newer"
    shutil.copytree(SOURCE.parent, source)
    with open(source / SOURCE.name, "a", encoding="utf-8") as stream:
        stream.write('\nconst char newer[] SEC("license_newer") = "newer";\n')
    rule = alone.rule(proxy.port, cidrs=["127.0.0.77"])
    alone.write(rule)
    loaded, held = [alone.managed.id("connect4")], alone.held()
    with direct_server() as address, inside(alone.apps), socket.create_connection(address) as live:
        right = f"{address[0]} {address[1]}"
        with Connecting(address) as programs:
            programs.wait_for(right)
            alone.load(source / SOURCE.name)
            loaded.append(alone.managed.id("connect4"))
            programs.wait_for(right)
            alone.write(rule)
            restore.rollback(alone.managed.places["state_dir"])
            loaded.append(alone.managed.id("connect4"))
            programs.wait_for(right)
        assert told(live)[0] == right
        assert live.getpeername() == address
    assert set(programs.found) == {right}, programs.found
    assert len(set(loaded)) == 3
    assert alone.held() == held
    assert alone.managed.kinds() == []


def test_disable_takes_all_of_it_away(alone, proxy):
    managed = alone.managed
    alone.write(alone.rule(proxy.port))
    with alone.connect() as live:
        managed.disable_here()
        assert told(live)[0] == f"{FAR4} 80"
    assert managed.listing() == []
    assert not alone.apps.exists()
