# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which directory a cgroup's name means."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import cgroups, mounts


def line(mount_id: int, parent: int, point: str, fstype: str) -> str:
    return f"{mount_id} {parent} 0:{mount_id} / {point} rw - {fstype} {fstype} rw\n"


def host(point: str) -> list:
    return mounts.parse(line(1, 0, "/", "ext4") + line(2, 1, "/cg", "tmpfs") + line(3, 2, point, "cgroup2"))


@pytest.mark.parametrize(
    ("path", "full"),
    [
        ("/", "/cg/unified"),
        ("app.slice", "/cg/unified/app.slice"),
        ("app.slice/web/", "/cg/unified/app.slice/web"),
        ("./a/../b", "/cg/unified/b"),
        ("/cg/unified/app.slice", "/cg/unified/app.slice"),
        ("/cg/unified", "/cg/unified"),
        ("..b", "/cg/unified/..b"),
    ],
)
def test_a_path_is_absolute_or_relative_to_the_mount(path, full):
    assert cgroups.resolve(path, host("/cg/unified")) == full


@pytest.mark.parametrize("path", ["/tmp", "../cpu", "/cg/cpu/web", "a/../../../etc"])
def test_another_filesystem_is_refused(path):
    with pytest.raises(SockredirError) as caught:
        cgroups.resolve(path, host("/cg/unified"))
    assert path in str(caught.value)
    assert "not on cgroup2" in str(caught.value)
    assert "/cg/unified" in caught.value.cure


def test_without_cgroup2_the_cure_says_how_to_mount_it():
    with pytest.raises(SockredirError) as caught:
        cgroups.resolve("app.slice", mounts.parse(line(1, 0, "/", "ext4") + line(2, 1, "/cg/cpu", "cgroup")))
    assert "no cgroup2" in str(caught.value)
    assert "mount -t cgroup2" in caught.value.cure


def test_a_symlink_out_of_the_hierarchy_is_refused(tmp_path):
    (tmp_path / "cg").mkdir()
    (tmp_path / "cg" / "link").symlink_to("/etc")
    listed = mounts.parse(line(1, 0, "/", "ext4") + line(2, 1, str(tmp_path / "cg"), "cgroup2"))
    with pytest.raises(SockredirError, match="/etc"):
        cgroups.resolve("link", listed)


def test_what_is_missing_outermost_first(tmp_path):
    assert cgroups.missing(f"{tmp_path}/a/b") == [f"{tmp_path}/a", f"{tmp_path}/a/b"]
    assert cgroups.missing(str(tmp_path)) == []


def test_a_parent_may_go_while_a_cgroup_is_created(tmp_path, monkeypatch):
    (tmp_path / "outer").mkdir()
    make, lost = os.mkdir, []

    def contended(directory, mode=0o777):
        if not lost:
            lost.append(directory)
            (tmp_path / "outer").rmdir()
        make(directory, mode)

    monkeypatch.setattr(os, "mkdir", contended)
    assert cgroups.create(f"{tmp_path}/outer/inner") == [f"{tmp_path}/outer", f"{tmp_path}/outer/inner"]
    assert lost == [f"{tmp_path}/outer/inner"]
