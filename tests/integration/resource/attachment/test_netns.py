# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockmap_attach on a network namespace."""

from __future__ import annotations

import os

from ansible_collections.ebpf.sockredir.plugins.module_utils.host import netns as namespaces
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.model import Attached
from support.netns import netns


def test_a_namespace_by_link(bench):
    with netns() as space:
        path = f"/run/netns/{space.name}"
        number = bench.program("netns")
        done = bench.four_times(netns=path)["attachment"]
        assert (done["attach_type"], done["method"], done["program_id"]) == ("sk_lookup", "link", number)
        assert (done["netns"], done["netns_ino"]) == (path, os.stat(path).st_ino)
        assert bench.on("netns", path) == [Attached(number, "link", done["link_id"])]

        foreign = bench.keep(bench.load("netns", "foreign"))
        with attachments.opened("netns", path) as target:
            other = bench.keep(libbpf.create_link(foreign, target, hooks.SK_LOOKUP.attach_type))
        newer = bench.program("netns")
        replaced = bench.attach(netns=path)
        assert [each["link_id"] for each in replaced["foreign"]] == [libbpf.link_info(other).id]
        assert [each.program_id for each in bench.on("netns", path)][:1] == [newer]
    # The namespace has gone, and the link that is pinned is dead.
    assert os.path.exists(done["link_pin"])
    assert "does not exist" in bench.attach(netns=path)["msg"]
    bench.four_times(netns=path, state="absent")
    assert not os.path.exists(done["link_pin"])
    assert bench.manifest()["attachments"] == []


def test_what_cannot_be_attached_is_named(bench):
    bench.program("netns")
    with netns() as space:
        path = f"/run/netns/{space.name}"
        legacy = bench.attach(netns=path, method="legacy")
        assert legacy["msg"] == "method: a network namespace takes programs only by links; use method: auto"
        bench.program("cgroup")
        wrong = bench.attach(netns=path, program=bench.path("cgroup"))
        assert "is of type sock_ops, but a netns takes sk_lookup" in wrong["msg"]
    for other in ("/proc/self/ns/pid", "/etc/hostname", "/proc"):
        failed = bench.attach(netns=other)
        assert failed["msg"].startswith(f"netns: {other} is not a network namespace; name its file, such as ")


def test_a_namespace_is_told_from_others():
    here = namespaces.inode(namespaces.HERE)
    with netns() as space:
        there = namespaces.inode(f"/run/netns/{space.name}")
        cookie = namespaces.cookie()
        with space.entered():
            assert namespaces.inode(namespaces.HERE) == there != here
            assert namespaces.cookie() != cookie
    assert namespaces.cookie() == cookie
    assert namespaces.inode(f"/run/netns/{space.name}") is None
