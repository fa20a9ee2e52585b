# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every prerequisite judged from facts, met and unmet."""

from __future__ import annotations

import errno

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils import distribution
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import facts, prerequisites

DEBIAN = distribution.Distribution("debian", "12", "Debian GNU/Linux 12 (bookworm)", "debian")
ALL_CAPABILITIES = (1 << 41) - 1

GOOD = {
    "release": "6.1.0-28-amd64",
    "distribution": DEBIAN,
    "capabilities": ALL_CAPABILITIES,
    "user_namespace": False,
    "bpf": 0,
    "sockhash": 0,
    "ringbuf": 0,
    "sock_ops": 0,
    "sk_msg": 0,
    "sk_skb": 0,
    "atomics": 0,
    "sock_ops_helpers": {"get_netns_cookie": True, "sock_hash_update": True},
    "sk_msg_helpers": {"get_netns_cookie": True, "msg_redirect_hash": True},
    "sk_skb_helpers": {"skb_adjust_room": True},
    "one_queue": {"ok": True, "unread": 0, "woken": True, "why": ""},
    "fionread": {"ok": True, "tcp": 100, "redirected": 100, "both": 200, "why": ""},
    "libbpf": {"libbpf.so.1": True, "libbpf.so.0": False},
    "cgroup1": False,
    "cgroup2": "/sys/fs/cgroup",
    "cgroup_bpf": 0,
    "pin_dir": "/sys/fs/bpf/sockredir",
    "pin_mount": ("/sys/fs/bpf", "bpf", False),
    "bpffs_known": True,
    "btf": 5000000,
    "lockdown": "integrity",
    "clang": "/usr/bin/clang",
    "headers": [],
    "bcc": (None, None),
    "kernel_headers": False,
    "memlock": 65536,
    "systemd": True,
}


def judged(**changes):
    return {each["name"]: each for each in prerequisites.judge({**GOOD, **changes})}


def test_a_good_host_meets_all():
    for name, each in judged().items():
        assert each["ok"] is True, name
        assert each["cure"] == "", name
        assert set(each) == {"name", "ok", "found", "needed", "cure", "scope"}


@pytest.mark.parametrize(
    ("changes", "name", "ok", "found", "cure"),
    [
        ({"capabilities": 0}, "root", False, "too few", "become"),
        ({"capabilities": 1 << 39 | 1 << 12 | 1 << 38}, "root", True, "enough", ""),
        ({"capabilities": 1 << 39 | 1 << 12}, "root", False, "too few", "become"),
        ({"capabilities": 1 << 21}, "root", True, "enough", ""),
        ({"capabilities": None}, "root", None, "no /proc", "mount /proc"),
        ({"user_namespace": True}, "root", False, "user namespace", "on the host"),
        ({"bpf": errno.ENOSYS}, "bpf_syscall", False, "ENOSYS", "CONFIG_BPF_SYSCALL"),
        ({"bpf": errno.EPERM}, "bpf_syscall", None, "EPERM", "as root"),
        ({"sockhash": errno.EINVAL}, "sockhash", False, "EINVAL", "CONFIG_BPF_STREAM_PARSER"),
        ({"ringbuf": errno.EINVAL}, "ringbuf", False, "EINVAL", "5.17"),
        ({"sock_ops": errno.EINVAL}, "sock_ops", False, "EINVAL", "CONFIG_CGROUP_BPF"),
        ({"sk_msg": errno.EPERM}, "sk_msg", None, "EPERM", "as root"),
        ({"sk_skb": errno.EINVAL}, "sk_skb", False, "EINVAL", "CONFIG_NET"),
        ({"sk_skb_helpers": {"skb_adjust_room": False}}, "sk_skb_helpers", False, "lacks skb_adjust_room", "5.17"),
        ({"atomics": errno.EINVAL}, "atomics", False, "EINVAL", "CONFIG_BPF_JIT"),
        (
            {"sk_msg_helpers": {"get_netns_cookie": False, "msg_redirect_hash": True}, "release": "5.10.0-35-amd64"},
            "sk_msg_helpers",
            False,
            "kernel 5.10.0-35-amd64 lacks get_netns_cookie",
            "5.17",
        ),
        ({"sock_ops_helpers": {"get_netns_cookie": None}}, "sock_ops_helpers", None, "does not say", "as root"),
        (
            {"sk_msg_helpers": {"probe_read_kernel": False}, "lockdown": "confidentiality"},
            "sk_msg_helpers",
            False,
            "lacks probe_read_kernel",
            "lockdown=confidentiality",
        ),
        (
            {"one_queue": {"ok": False, "unread": -1000, "woken": None, "why": ""}},
            "one_queue",
            False,
            "FIONREAD says -1000 after 1000 redirected bytes were read",
            "update the kernel",
        ),
        (
            {"one_queue": {"ok": False, "unread": 0, "woken": False, "why": ""}},
            "one_queue",
            False,
            "does not wake its reader",
            "update the kernel",
        ),
        (
            {"one_queue": {"ok": None, "unread": None, "woken": None, "why": "libbpf.so.1 is not on this host"}},
            "one_queue",
            None,
            "not tried: libbpf.so.1 is not on this host",
            "as root",
        ),
        (
            {"fionread": {"ok": False, "tcp": 100, "redirected": 0, "both": 100, "why": ""}},
            "fionread",
            False,
            "counts 100 of 100 bytes by TCP, 0 of 100 redirected, 100 of 200 mixed",
            "exclude the ports of programs that size their reads by it (nginx, Java, .NET)",
        ),
        (
            {"fionread": {"ok": None, "tcp": None, "redirected": None, "both": None, "why": "no lo"}},
            "fionread",
            None,
            "not tried: no lo",
            "as root",
        ),
        ({"lockdown": "confidentiality"}, "lockdown", False, "confidentiality", "boot without"),
        ({"lockdown": ""}, "lockdown", True, "none", ""),
        ({"libbpf": {"libbpf.so.1": False, "libbpf.so.0": False}}, "libbpf", False, "none", "apt-get install libbpf1"),
        (
            {"libbpf": {"libbpf.so.1": False, "libbpf.so.0": True}},
            "libbpf",
            False,
            "only libbpf.so.0",
            "Ubuntu 24.04",
        ),
        ({"cgroup2": None, "cgroup1": True}, "cgroup2", False, "only cgroup v1", "unified_cgroup_hierarchy=1"),
        ({"cgroup2": None}, "cgroup2", False, "no cgroup hierarchy", "mount -t cgroup2"),
        ({"cgroup_bpf": errno.EINVAL}, "cgroup2", False, "/sys/fs/cgroup, but", "CONFIG_CGROUP_BPF"),
        ({"cgroup_bpf": errno.EPERM}, "cgroup2", None, "/sys/fs/cgroup", "as root"),
        ({"pin_mount": ("/sys", "sysfs", False)}, "bpffs", True, "not mounted", ""),
        ({"pin_mount": ("/sys", "sysfs", False), "bpffs_known": False}, "bpffs", False, "no bpffs", "CONFIG_BPF"),
        ({"pin_mount": ("/", "ext4", False), "pin_dir": "/srv/x"}, "bpffs", False, "/srv/x is on ext4", "pin_dir"),
        ({"pin_mount": ("/sys", "sysfs", False), "pin_dir": "/sys/fs/bpfx"}, "bpffs", False, "sysfs", "pin_dir"),
        ({"pin_mount": ("/sys/fs/bpf", "bpf", True)}, "bpffs", False, "read-only", "remount,rw"),
        ({"pin_mount": None}, "bpffs", None, "mountinfo", "/proc"),
        ({"btf": None}, "btf", False, "none", "CONFIG_DEBUG_INFO_BTF"),
        ({"release": "5.10.1", "capabilities": 1 << 21}, "memlock", False, "65536 bytes", "ulimit"),
        ({"release": "5.10.1"}, "memlock", True, "may be raised", ""),
        ({"release": "5.10.1", "capabilities": 0, "memlock": -1}, "memlock", True, "not limited", ""),
        ({"clang": None}, "compiler", False, "neither clang nor bcc", "apt-get install clang libbpf-dev"),
        (
            {"headers": ["/usr/include/bpf/bpf_helpers.h"]},
            "compiler",
            False,
            "clang at /usr/bin/clang without /usr/include/bpf/bpf_helpers.h",
            "libbpf-dev",
        ),
        ({"clang": None, "bcc": ("/d/bcc", None), "kernel_headers": True}, "compiler", True, "bcc at /d/bcc", ""),
        (
            {"clang": None, "bcc": ("/d/bcc", None)},
            "compiler",
            False,
            "bcc at /d/bcc without headers of 6.1",
            "linux-headers-",
        ),
        ({"clang": None, "bcc": (None, "/d/bcc")}, "compiler", False, "not the BPF Compiler", "python3-bpfcc"),
        ({"systemd": False}, "systemd", False, "not running", "sockredir_persist: false"),
    ],
)
def test_each_prerequisite(changes, name, ok, found, cure):
    each = judged(**changes)[name]
    assert each["ok"] is ok
    assert found in each["found"]
    assert cure in each["cure"]
    assert bool(each["cure"]) is not (ok is True)
    assert "\n" not in "".join(map(str, each.values()))


def test_only_what_matters_is_missing():
    wrong = {name: {**GOOD[name], "ok": False} for name in ("one_queue", "fionread")}
    met = prerequisites.judge({**GOOD, **wrong, "clang": None, "systemd": False})
    assert prerequisites.missing(met, ["load"]) == []
    assert [each["name"] for each in prerequisites.missing(met, ["behaviour"])] == ["one_queue", "fionread"]
    assert [each["name"] for each in prerequisites.missing(met, ["load", "build", "persist"])] == [
        "compiler",
        "systemd",
    ]


def test_what_is_unknown_is_missing_too():
    met = prerequisites.judge({**GOOD, "bpf": errno.EPERM})
    assert [each["name"] for each in prerequisites.missing(met, ["load"])] == ["bpf_syscall"]


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-28-amd64", (6, 1)), ("6.18-rc3", (6, 18)), ("5.10.0", (5, 10)), ("7.2+", (7, 2)), ("odd", (0, 0))],
)
def test_kernel_version(release, version):
    assert prerequisites.kernel_version(release) == version


@pytest.mark.parametrize(
    ("text", "family", "manager", "libbpf"),
    [
        ("ID=debian\nVERSION_ID='12'\n", "debian", "apt", "apt-get install libbpf1"),
        ('ID=ubuntu\nID_LIKE="debian"\n', "debian", "apt", "apt-get install libbpf1"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "redhat", "dnf", "dnf install libbpf"),
        ("ID=linuxmint\nID_LIKE=ubuntu\n", "debian", "apt", "apt-get install libbpf1"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "suse", "zypper", "zypper install libbpf1"),
        ("ID=alpine\n", "", "", "install libbpf1 (debian), libbpf (redhat), libbpf1 (suse)"),
        ("# ID=debian\nID='bro\n", "", "", "install libbpf1 (debian), libbpf (redhat), libbpf1 (suse)"),
        ("", "", "", "install libbpf1 (debian), libbpf (redhat), libbpf1 (suse)"),
    ],
)
def test_the_distribution_and_what_to_install(text, family, manager, libbpf):
    found = distribution.parse(text)
    assert (found.family, found.package_manager) == (family, manager)
    assert distribution.install("libbpf", found) == libbpf


@pytest.mark.parametrize(
    ("text", "clang", "bcc"),
    [
        ("ID=ubuntu\nID_LIKE=debian", "clang libbpf-dev linux-libc-dev", "python3-bpfcc linux-headers-6.1"),
        ("ID=fedora", "clang libbpf-devel kernel-headers", "python3-bcc kernel-devel-6.1"),
        ('ID="rhel"\nID_LIKE="fedora"', "clang libbpf-devel kernel-headers", "python3-bcc kernel-devel-6.1"),
        ('ID="almalinux"', "clang libbpf-devel kernel-headers", "python3-bcc kernel-devel-6.1"),
        ('ID="ol"\nID_LIKE="fedora"', "clang libbpf-devel kernel-headers", "python3-bcc kernel-devel-6.1"),
        ('ID="amzn"\nID_LIKE="fedora"', "clang libbpf-devel kernel-headers", "python3-bcc kernel-devel-6.1"),
        ('ID="sles"\nID_LIKE="suse"', "clang libbpf-devel linux-glibc-devel", "python3-bcc kernel-default-devel"),
        ("ID=opensuse-tumbleweed", "clang libbpf-devel linux-glibc-devel", "python3-bcc kernel-default-devel"),
        ("ID=arch", "", ""),
    ],
)
def test_the_packages_of_each_distribution(text, clang, bcc):
    family = distribution.parse(text).family
    assert " ".join(distribution.packages("clang", family, "6.1")) == clang
    assert " ".join(distribution.packages("bcc", family, "6.1")) == bcc


def test_the_facts_of_this_machine_can_be_judged():
    here = facts.observe("/sys/fs/bpf/sockredir")
    assert set(here) == set(GOOD)
    assert all(each["ok"] in (True, False, None) for each in prerequisites.judge(here))


@pytest.mark.parametrize(
    ("tried", "ok", "found"),
    [
        ({"connect4": 0, "getsockopt": 0}, True, "work"),
        (
            {"connect4": 0, "getpeername4": errno.EINVAL, "getpeername6": errno.EINVAL},
            False,
            "refused: getpeername4 (EINVAL), getpeername6 (EINVAL)",
        ),
        ({"connect4": errno.EPERM, "connect6": errno.EPERM}, None, "refused: connect4 (EPERM), connect6 (EPERM)"),
        ({"connect4": 0, "connect6": errno.EACCES}, None, "refused: connect6 (EACCES)"),
        ({"connect4": errno.EPERM, "connect6": errno.EINVAL}, False, "refused: connect4 (EPERM), connect6 (EINVAL)"),
    ],
)
def test_all_missing_hooks_of_interception_are_one_line(tried, ok, found):
    each = prerequisites.intercept_hooks(tried)
    assert (each["ok"], each["found"], each["scope"]) == (ok, found, prerequisites.LOAD)
    assert each["needed"] == f"programs at {', '.join(tried)}"
    assert bool(each["cure"]) is (ok is not True)
