# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mountinfo of real hosts: which mount a path lies on, where bpffs and cgroup2 are."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import mounts

UNIFIED = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
24 23 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
25 23 0:23 / /sys/fs/bpf rw,nosuid,nodev,noexec,relatime shared:11 - bpf bpf rw,mode=700
26 22 0:24 / /run rw shared:5 - tmpfs tmpfs rw,mode=755
"""

HYBRID = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""

V1_ONLY = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 27 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
"""

STACKED = UNIFIED + "90 25 0:50 / /sys/fs/bpf rw,relatime - bpf bpf rw\n"

HIDDEN = UNIFIED + "91 23 0:51 / /sys/fs rw,relatime - tmpfs tmpfs rw\n"

ODD_PLACES = UNIFIED + (
    "70 22 0:60 / /srv/my\\040bpf rw - bpf bpf rw\n"
    "71 22 0:61 / /srv/back\\134slash rw - bpf bpf rw\n"
    "72 26 0:62 /user.slice /run/cgroup rw - cgroup2 cgroup2 rw\n"
    "73 22 0:23 / /bpf-bind rw - bpf bpf rw,mode=700\n"
)

CHROOT = """\
30 29 0:22 / /sys rw - sysfs sysfs rw
31 30 0:23 / /sys/fs/bpf rw - bpf bpf rw
"""

CONTAINER = """\
500 400 0:70 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a:/b
501 500 0:71 / /proc rw,nosuid - proc proc rw
502 500 0:72 / /sys ro,nosuid - sysfs sysfs ro
503 502 0:26 /../../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate
"""


@pytest.mark.parametrize(
    ("text", "path", "point", "mount_id"),
    [
        (UNIFIED, "/sys/fs/bpf/sockredir/sockops", "/sys/fs/bpf", 25),
        (UNIFIED, "/sys/fs/bpfx", "/sys", 23),
        (UNIFIED, "/sys/fs/bpf/..", "/sys", 23),
        (UNIFIED, "/", "/", 22),
        (HYBRID, "/sys/fs/cgroup/unified/a/b", "/sys/fs/cgroup/unified", 41),
        (STACKED, "/sys/fs/bpf/x", "/sys/fs/bpf", 90),
        (HIDDEN, "/sys/fs/bpf/x", "/sys/fs", 91),
        (ODD_PLACES, "/srv/my bpf/pins", "/srv/my bpf", 70),
        (ODD_PLACES, "/srv/back\\slash/pins", "/srv/back\\slash", 71),
        (CHROOT, "/sys/fs/bpf/x", "/sys/fs/bpf", 31),
        (CONTAINER, "/sys/fs/cgroup/x", "/sys/fs/cgroup", 503),
    ],
)
def test_the_mount_that_holds_a_path(text, path, point, mount_id):
    mount = mounts.holding(path, mounts.parse(text))
    assert (mount.point, mount.mount_id) == (point, mount_id)


def test_no_mount_holds_what_lies_outside_a_chroot():
    assert mounts.holding("/home", mounts.parse(CHROOT)) is None


@pytest.mark.parametrize(
    ("text", "point"),
    [
        (UNIFIED, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        (V1_ONLY, None),
        (HIDDEN, None),
        (ODD_PLACES, "/sys/fs/cgroup"),
        (CONTAINER, "/sys/fs/cgroup"),
        ("", None),
    ],
)
def test_the_cgroup2_mount(text, point):
    found = mounts.cgroup2(mounts.parse(text))
    assert (found.point if found else None) == point


@pytest.mark.parametrize(
    ("text", "reachable", "unreachable"),
    [
        (UNIFIED, [25], []),
        (HYBRID, [], []),
        (STACKED, [90], [25]),
        (HIDDEN, [], [25]),
        (ODD_PLACES, [25, 70, 71, 73], []),
    ],
)
def test_every_bpffs_and_whether_it_can_be_reached(text, reachable, unreachable):
    listed = mounts.parse(text)
    found = mounts.of_type(mounts.BPFFS, listed)
    assert [mount.mount_id for mount in found if mounts.visible(mount, listed)] == reachable
    assert [mount.mount_id for mount in found if not mounts.visible(mount, listed)] == unreachable


@pytest.mark.parametrize(
    "line", ["", "garbage", "1 2 3 - bpf", "x y 0:1 / /p rw - bpf bpf rw", "1 2 0:1 / /p rw bpf bpf rw"]
)
def test_lines_of_unknown_form_are_skipped(line):
    assert [mount.mount_id for mount in mounts.parse(UNIFIED + line)] == [22, 23, 24, 25, 26]


def test_octal_escapes():
    assert mounts.unescape("a\\040b\\011c\\012d\\134040") == "a b\tc\nd\\040"


def test_this_machine_has_a_root():
    assert mounts.holding("/", mounts.read()).point == "/"
