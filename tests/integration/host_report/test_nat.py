# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NAT rules as nft and both kinds of iptables write them, in a network namespace of the test's own."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from support.collection import ROOT
from support.netns import netns

_OBSERVE = """
import json, sys
sys.path.insert(0, "tests")
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import nat
print(json.dumps(nat.observe()))
"""
BASE = "{ type nat hook output priority -100; }"


@pytest.fixture(scope="module")
def space():
    with netns() as own:
        yield own


def needs(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def observed(space, monkeypatch):
    monkeypatch.chdir(ROOT)
    return {
        (protocol, *map(tuple, ports)): text
        for protocol, ports, text in json.loads(space.run(sys.executable, "-c", _OBSERVE))
    }


@needs("nft", "iptables-nft", "ip6tables-legacy")
def test_all_of_them(space, monkeypatch):
    assert observed(space, monkeypatch) == {}
    assert space.run("nft", "list", "ruleset") == "", "looking made nothing"
    by_nft = "-A OUTPUT -p tcp -m multiport ! --dports 22:65535 -j REDIRECT --to-ports 9"
    by_legacy = "-A MORE -p tcp -m tcp --dport 443 -j DNAT --to-destination [::1]:9"
    space.run("nft", f"add table inet own; add chain inet own out {BASE}")
    space.run("nft", "add rule inet own out tcp dport 8000-8099 redirect to :15001")
    space.run("iptables-nft", "-t", "nat", *by_nft.split())
    for words in ("-N MORE", "-A OUTPUT -p tcp -j MORE", by_legacy):
        space.run("ip6tables-legacy", "-t", "nat", *words.split())
    assert observed(space, monkeypatch) == {
        ("tcp", (8000, 8099)): "nft inet own out handle 2: redirect",
        ("tcp", (0, 21)): f"iptables {by_nft}",
        ("tcp", (443, 443)): f"ip6tables-legacy {by_legacy}",
    }
