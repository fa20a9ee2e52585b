# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge all prerequisites of a host at once, from :mod:`.facts`. Pure: nothing here looks at the host."""

from __future__ import annotations

import errno
import os
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from .. import distribution
from .facts import Facts

BPFFS = "bpf"
#: A kernel of this version has every helper and map type, unless its configuration leaves them out.
_ENOUGH = "5.17"
_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_SYS_RESOURCE, _CAP_PERFMON, _CAP_BPF = 12, 21, 24, 38, 39

#: When a prerequisite matters: always, when building on the host, when it is to survive a reboot, and to those who want
#: redirected sockets to behave as TCP's do.
LOAD, BUILD, PERSIST, BEHAVIOUR = "load", "build", "persist", "behaviour"

Prerequisite = Dict[str, Any]


def judge(facts: Facts) -> List[Prerequisite]:
    """Each prerequisite with ``name``, ``ok``, ``found``, ``needed``, ``cure`` and ``scope``.

    ``ok`` is None if it could not be found out; the cure is empty if it is true.
    """
    return [check(facts) for check in _CHECKS]


def missing(prerequisites: Sequence[Prerequisite], scopes: Sequence[str]) -> List[Prerequisite]:
    """Those of the given scopes that are not known to be met."""
    return [each for each in prerequisites if each["scope"] in scopes and each["ok"] is not True]


def _prerequisite(name: str, ok: Optional[bool], found: str, needed: str, cure: str, scope: str = LOAD) -> Prerequisite:
    return {"name": name, "ok": ok, "found": found, "needed": needed, "cure": "" if ok else cure, "scope": scope}


def _has(facts: Facts, *numbers: int) -> bool:
    return all(facts["capabilities"] >> number & 1 for number in numbers)


def _root(facts: Facts) -> Prerequisite:
    needed = "CAP_SYS_ADMIN, or CAP_BPF with CAP_NET_ADMIN and CAP_PERFMON, outside a user namespace"
    if facts["capabilities"] is None:
        return _prerequisite("root", None, "no /proc", needed, "mount /proc")
    able = _has(facts, _CAP_SYS_ADMIN) or _has(facts, _CAP_BPF, _CAP_NET_ADMIN, _CAP_PERFMON)
    if able and facts["user_namespace"]:
        return _prerequisite(
            "root", False, "root of a user namespace", needed, "run it on the host, not in a container"
        )
    found = "enough capabilities" if able else "too few capabilities"
    return _prerequisite("root", able, found, needed, "run it as root (become: true)")


_REFUSED_CURE = "run it as root on the host itself: a container, seccomp or a security module blocks bpf(2)"


def _tried(facts: Facts, key: str, name: str, needed: str, cure: str) -> Prerequisite:
    code = facts[key]
    found = "works" if code == 0 else f"refused: {os.strerror(code)} ({errno.errorcode.get(code, code)})"
    if code in (errno.EPERM, errno.EACCES):
        return _prerequisite(name, None, found, needed, _REFUSED_CURE)
    return _prerequisite(name, code == 0, found, needed, cure)


def _bpf_syscall(facts: Facts) -> Prerequisite:
    return _tried(facts, "bpf", "bpf_syscall", "bpf(2)", "boot a kernel built with CONFIG_BPF_SYSCALL")


def _newer(option: str = "") -> str:
    return f"boot a kernel that has it: {_ENOUGH} or newer{', built with ' + option if option else ''}"


def _sockhash(facts: Facts) -> Prerequisite:
    options = "CONFIG_INET, and CONFIG_BPF_STREAM_PARSER before 5.13"
    return _tried(facts, "sockhash", "sockhash", "maps of type SOCKHASH with values of 8 bytes", _newer(options))


def _ringbuf(facts: Facts) -> Prerequisite:
    return _tried(facts, "ringbuf", "ringbuf", "maps of type RINGBUF", _newer())


def _sock_ops(facts: Facts) -> Prerequisite:
    return _tried(facts, "sock_ops", "sock_ops", "programs of type sock_ops", _newer("CONFIG_CGROUP_BPF"))


def _sk_msg(facts: Facts) -> Prerequisite:
    return _tried(facts, "sk_msg", "sk_msg", "programs of type sk_msg", _newer("CONFIG_NET"))


def _sk_skb(facts: Facts) -> Prerequisite:
    return _tried(facts, "sk_skb", "sk_skb", "programs of type sk_skb", _newer("CONFIG_NET"))


def _atomics(facts: Facts) -> Prerequisite:
    return _tried(facts, "atomics", "atomics", "atomic compare-and-exchange in programs", _newer("CONFIG_BPF_JIT"))


def _sock_ops_helpers(facts: Facts) -> Prerequisite:
    return _helpers(facts, "sock_ops")


def _sk_msg_helpers(facts: Facts) -> Prerequisite:
    return _helpers(facts, "sk_msg")


def _sk_skb_helpers(facts: Facts) -> Prerequisite:
    return _helpers(facts, "sk_skb")


def _helpers(facts: Facts, program: str) -> Prerequisite:
    answers = facts[f"{program}_helpers"]
    name, needed = f"{program}_helpers", ", ".join(answers)
    lacking = [helper for helper, there in answers.items() if there is False]
    if lacking:
        cure = _newer()
        if facts["lockdown"] == "confidentiality":
            cure = "boot without lockdown=confidentiality"
        return _prerequisite(name, False, f"kernel {facts['release']} lacks " + ", ".join(lacking), needed, cure)
    if None in answers.values():
        return _prerequisite(name, None, "the kernel does not say", needed, _REFUSED_CURE)
    return _prerequisite(name, True, "all of them", needed, "")


def intercept_hooks(tried: Mapping[str, int]) -> Prerequisite:
    """What interception needs beside all else, all that is missing at once.

    :param tried: as :func:`.facts.intercept_hooks` found it.
    """
    needed = f"programs at {', '.join(tried)}"
    refused = [f"{name} ({errno.errorcode.get(code, code)})" for name, code in tried.items() if code]
    found = f"refused: {', '.join(refused)}" if refused else "work"
    if refused and set(tried.values()) <= {0, errno.EPERM, errno.EACCES}:
        return _prerequisite("intercept_hooks", None, found, needed, _REFUSED_CURE)
    return _prerequisite("intercept_hooks", not refused, found, needed, _newer("CONFIG_CGROUP_BPF"))


def _btf(facts: Facts) -> Prerequisite:
    found = f"{facts['btf']} bytes" if facts["btf"] else "none"
    cure = "boot a kernel built with CONFIG_DEBUG_INFO_BTF"
    return _prerequisite(
        "btf", bool(facts["btf"]), found, "/sys/kernel/btf/vmlinux, for programs that run on any kernel", cure
    )


def _lockdown(facts: Facts) -> Prerequisite:
    mode = facts["lockdown"]
    cure = "boot without lockdown=confidentiality: it keeps programs from reading the kernel's memory"
    needed = "lockdown none or integrity"
    return _prerequisite("lockdown", mode != "confidentiality", mode or "none", needed, cure)


def _libbpf(facts: Facts) -> Prerequisite:
    found = facts["libbpf"]
    cure = install_cure("libbpf", facts)
    if found["libbpf.so.1"]:
        return _prerequisite("libbpf", True, "libbpf.so.1", "libbpf.so.1", cure)
    if found["libbpf.so.0"]:
        cure += " (Debian 12, Ubuntu 24.04, Enterprise Linux 9, Leap 15.6 and newer have it)"
        return _prerequisite("libbpf", False, "only libbpf.so.0", "libbpf.so.1", cure)
    return _prerequisite("libbpf", False, "none", "libbpf.so.1", cure)


def install_cure(what: str, facts: Facts) -> str:
    """How to install something on this host's distribution; see :data:`.distribution.PACKAGES`."""
    return distribution.install(what, facts["distribution"])


def _cgroup2(facts: Facts) -> Prerequisite:
    needed = "a mounted cgroup2 hierarchy, on a kernel that supports sock_ops programs"
    if facts["cgroup2"] is None:
        found = "only cgroup v1" if facts["cgroup1"] else "no cgroup hierarchy is mounted"
        cure = "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified"
        return _prerequisite("cgroup2", False, found, needed, cure)
    code = facts["cgroup_bpf"]
    if code in (errno.EPERM, errno.EACCES):
        return _prerequisite("cgroup2", None, facts["cgroup2"], needed, _REFUSED_CURE)
    if code:
        found = f"{facts['cgroup2']}, but the kernel supports no programs on cgroups"
        return _prerequisite("cgroup2", False, found, needed, "boot a kernel built with CONFIG_CGROUP_BPF")
    return _prerequisite("cgroup2", True, facts["cgroup2"], needed, "")


def _bpffs(facts: Facts) -> Prerequisite:
    needed = f"a bpffs for {facts['pin_dir']}, already mounted or mountable at /sys/fs/bpf"
    if facts["pin_mount"] is None:
        return _prerequisite("bpffs", None, "mountinfo cannot be read", needed, "mount /proc")
    point, fstype, read_only = facts["pin_mount"]
    if fstype == BPFFS and not read_only:
        return _prerequisite("bpffs", True, f"mounted at {point}", needed, "")
    if fstype == BPFFS:
        cure = f"mount -o remount,rw {point}"
        return _prerequisite("bpffs", False, f"mounted read-only at {point}", needed, cure)
    if not facts["bpffs_known"]:
        return _prerequisite(
            "bpffs", False, "the kernel has no bpffs", needed, "boot a kernel built with CONFIG_BPF_SYSCALL"
        )
    usual = facts["pin_dir"] == "/sys/fs/bpf" or facts["pin_dir"].startswith("/sys/fs/bpf/")
    cure = "choose a pin_dir under /sys/fs/bpf, or mount a bpffs there"
    return _prerequisite("bpffs", usual, f"not mounted: {facts['pin_dir']} is on {fstype}", needed, cure)


def _memlock(facts: Facts) -> Prerequisite:
    # From 5.11 on maps are charged to the memory cgroup instead (3ac1f01b43b6); libbpf raises the limit if it may.
    limit = facts["memlock"]
    free = kernel_version(facts["release"]) >= (5, 11) or limit == -1
    may_raise = facts["capabilities"] is not None and _has(facts, _CAP_SYS_RESOURCE)
    found = "not limited" if free else f"{limit} bytes" + (", and may be raised" if may_raise else "")
    return _prerequisite(
        "memlock",
        free or may_raise,
        found,
        "Linux 5.11 or newer, or no limit",
        "ulimit -l unlimited, or CAP_SYS_RESOURCE",
    )


def compilers(facts: Facts) -> List[str]:
    """The compilers that can be used on this host, of ``clang`` and ``bcc``."""
    usable = {"clang": facts["clang"] and not facts["headers"], "bcc": facts["bcc"][0] and facts["kernel_headers"]}
    return [name for name, there in usable.items() if there]


def _compiler(facts: Facts) -> Prerequisite:
    clang, headers, (bcc, other) = facts["clang"], facts["headers"], facts["bcc"]
    found = [f"clang at {clang}" + (f" without {', '.join(headers)}" if headers else "")] if clang else []
    if bcc:
        found.append(f"bcc at {bcc}" + ("" if facts["kernel_headers"] else f" without headers of {facts['release']}"))
    elif other:
        found.append(f"{other}, which is not the BPF Compiler Collection but another package of that name")
    ok = bool(compilers(facts))
    cure = f"{install_cure('clang', facts)} (or, for bcc: {install_cure('bcc', facts)})"
    needed = "clang with libbpf's headers, or bcc with the kernel's headers"
    return _prerequisite("compiler", ok, "; ".join(found) or "neither clang nor bcc", needed, cure, BUILD)


def _systemd(facts: Facts) -> Prerequisite:
    found = "running" if facts["systemd"] else "not running"
    cure = "set sockredir_persist: false, or run the restore at boot by other means"
    return _prerequisite("systemd", facts["systemd"], found, "systemd, to restore everything at boot", cure, PERSIST)


_UNTRIED_CURE = "run it as root on the host itself, with libbpf.so.1 installed and the device lo up"


def one_queue_found(facts: Facts) -> str:
    """What the trial of :func:`..kernel.queues.one_queue` found, in one line."""
    found = facts["one_queue"]
    if found["ok"] is None:
        return f"not tried: {found['why']}"
    if found["unread"]:
        return f"FIONREAD says {found['unread']} after 1000 redirected bytes were read"
    return "works" if found["ok"] else "a byte by TCP after redirected ones does not wake its reader"


def _one_queue(facts: Facts) -> Prerequisite:
    ok = facts["one_queue"]["ok"]
    needed = "a stream verdict on a sockhash that keeps TCP's accounting correct (b40cc5adaa80)"
    cure = "update the kernel" if ok is False else _UNTRIED_CURE
    return _prerequisite("one_queue", ok, one_queue_found(facts), needed, cure, BEHAVIOUR)


def fionread_found(facts: Facts) -> str:
    """What the trial of :func:`..kernel.queues.fionread` found, in one line."""
    found = facts["fionread"]
    if found["ok"] is None:
        return f"not tried: {found['why']}"
    counts = (
        f"{found['tcp']} of 100 bytes by TCP, {found['redirected']} of 100 redirected, {found['both']} of 200 mixed"
    )
    return "counts all" if found["ok"] else f"counts {counts}"


def _fionread(facts: Facts) -> Prerequisite:
    ok = facts["fionread"]["ok"]
    needed = "ioctl(FIONREAD) counts all unread bytes of a socket in a sockhash"
    cure = "update the kernel, or exclude the ports of programs that size their reads by it (nginx, Java, .NET)"
    return _prerequisite(
        "fionread", ok, fionread_found(facts), needed, _UNTRIED_CURE if ok is None else cure, BEHAVIOUR
    )


_CHECKS: Sequence[Callable[[Facts], Prerequisite]] = (
    _root,
    _bpf_syscall,
    _libbpf,
    _cgroup2,
    _bpffs,
    _sock_ops,
    _sk_msg,
    _sk_skb,
    _sockhash,
    _ringbuf,
    _atomics,
    _sock_ops_helpers,
    _sk_msg_helpers,
    _sk_skb_helpers,
    _one_queue,
    _fionread,
    _btf,
    _lockdown,
    _memlock,
    _compiler,
    _systemd,
)


def kernel_version(release: str) -> Tuple[int, int]:
    """``(6, 1)`` for ``6.1.0-28-amd64``; ``(0, 0)`` if it has another form."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)
