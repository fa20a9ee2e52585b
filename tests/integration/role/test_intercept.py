# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook of ``examples/intercept``, as it is, in a sandbox on this machine."""

from __future__ import annotations

import os
import socket

import pytest
from support.collection import ROOT
from support.host import cgroup2_mount, inside
from support.interception import FAR4, Namer, told
from support.playbook import play

PLAYBOOK = ROOT / "examples" / "intercept" / "intercept.yml"


@pytest.fixture
def variables(host):
    host.pin_dir.mkdir()
    apps, proxy = (f"{host.cgroup.name}/{name}" for name in ("apps", "proxy"))
    return {
        "intercept_hosts": "localhost",
        "intercept_pin_dir": str(host.pin_dir),
        "intercept_state_dir": str(host.state_dir),
        "intercept_apps": [apps],
        "intercept_proxies": [proxy],
        "intercept_rules": [{"name": "web", "cgroup": apps, "proxy_cgroup": proxy, "to": [15001], "udp_dns": [5353]}],
    }


def moved(cgroup: str, make):
    with inside(cgroup2_mount() / cgroup):
        return make()


def test_the_playbook_of_the_guide(host, variables):
    def run(*options):
        return play(str(PLAYBOOK), variables, options).ok()

    assert "Say which connections go where" in run("--check", "--diff").changed
    assert os.listdir(host.pin_dir) == []
    assert "Say which connections go where" in run("--diff").changed
    assert run("--diff").changed == []
    with moved(variables["intercept_proxies"][0], Namer) as proxy:
        variables["intercept_rules"][0]["to"] = [proxy.port]
        assert run().changed == ["Say which connections go where"]
        client = moved(variables["intercept_apps"][0], lambda: socket.create_connection((FAR4, 80), timeout=20))
        with client:
            assert told(client)[0] == f"{FAR4} 80"
