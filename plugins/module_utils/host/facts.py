# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has of what the collection needs: found by testing, never by the kernel's version.

Reads, and tries things that leave nothing behind. Works without root and on a host with nothing installed.
"""

from __future__ import annotations

import ctypes
import glob
import os
import resource
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from .. import distribution
from ..kernel import hooks, probe, queues
from . import mounts

#: Helpers that the shipped programs call, by program type.
SOCK_OPS_HELPERS = (
    "get_current_task",
    "get_netns_cookie",
    "get_smp_processor_id",
    "get_socket_cookie",
    "ktime_get_ns",
    "map_delete_elem",
    "map_lookup_elem",
    "map_update_elem",
    "probe_read_kernel",
    "ringbuf_output",
    "setsockopt",
    "skc_to_tcp_sock",
    "sock_hash_update",
    "sock_ops_cb_flags_set",
)
SK_MSG_HELPERS = (
    "for_each_map_elem",
    "get_current_task",
    "ktime_get_ns",
    "loop",
    "map_lookup_elem",
    "map_update_elem",
    "msg_pull_data",
    "msg_redirect_hash",
    "probe_read_kernel",
    "skc_to_tcp_sock",
)
SK_SKB_HELPERS = (
    "loop",
    "map_lookup_elem",
    "skb_adjust_room",
    "skc_to_tcp_sock",
)
_SOCKHASH = 18
_ARRAY = 2

Facts = Dict[str, Any]


def observe(pin_dir: str, read_mounts: Callable[[], List[mounts.Mount]] = mounts.read) -> Facts:
    """All facts that :func:`judge` wants.

    :param pin_dir: str, where the pins are to be.
    :param read_mounts: says what is mounted; may raise OSError.
    """
    mounted = _or(read_mounts, [])
    cgroup2 = mounts.cgroup2(mounted)
    one_queue = queues.one_queue()
    return {
        "release": os.uname().release,
        "distribution": distribution.read(),
        "capabilities": _capabilities(),
        "user_namespace": _in_user_namespace(),
        "bpf": probe.map_type(_ARRAY, 4, 4, 1),
        "sockhash": probe.map_type(_SOCKHASH, 48, 8, 1),
        "ringbuf": probe.ring_buffer(),
        "sock_ops": probe.program_type("sock_ops"),
        "sk_msg": probe.program_type("sk_msg"),
        "sk_skb": probe.program_type("sk_skb"),
        "atomics": probe.atomics("sk_msg"),
        "sock_ops_helpers": probe.helpers("sock_ops", SOCK_OPS_HELPERS),
        "sk_msg_helpers": probe.helpers("sk_msg", SK_MSG_HELPERS),
        "sk_skb_helpers": probe.helpers("sk_skb", SK_SKB_HELPERS),
        "one_queue": one_queue._asdict(),
        # As the role leaves the map: with a stream verdict only if that does no harm.
        "fionread": queues.fionread(one_queue.ok is True)._asdict(),
        "libbpf": _libraries(),
        "cgroup1": bool(mounts.of_type("cgroup", mounted)),
        "cgroup2": cgroup2.point if cgroup2 else None,
        "cgroup_bpf": probe.cgroup_query(cgroup2.point) if cgroup2 else None,
        "pin_dir": os.path.realpath(pin_dir),
        "pin_mount": _pin_mount(pin_dir, mounted),
        "bpffs_known": bpffs_known(),
        "btf": _size("/sys/kernel/btf/vmlinux"),
        "lockdown": lockdown(),
        "clang": _clang(),
        "headers": _missing_headers(),
        "bcc": _bcc(),
        "kernel_headers": _kernel_headers(),
        "memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[1],
        "systemd": os.path.isdir("/run/systemd/system"),
    }


def intercept_hooks(programs: Iterable[str]) -> Dict[str, int]:
    """For programs of interception, 0 or the errno with which the kernel refuses one of that kind."""
    places = {each.section.split("/")[1]: each for each in (hooks.GETSOCKOPT, *hooks.SOCK_ADDR)}
    places["inbound"] = hooks.SK_LOOKUP
    wanted = [name for name in dict.fromkeys(programs) if name in places]
    return {name: probe.hook(places[name].program_type, places[name].attach_type) for name in wanted}


def _or(read: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return read()
    except OSError:
        return otherwise


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as text:
        return text.read()


def _capabilities() -> Optional[int]:
    for line in _or(lambda: _text("/proc/self/status"), "").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return None


def _in_user_namespace() -> bool:
    return _or(lambda: _text("/proc/self/uid_map"), "0 0 4294967295").split() != ["0", "0", "4294967295"]


def _libraries() -> Dict[str, bool]:
    return {name: _loads(name) for name in ("libbpf.so.1", "libbpf.so.0")}


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _pin_mount(pin_dir: str, mounted: Sequence[mounts.Mount]) -> Optional[Tuple[str, str, bool]]:
    mount = mounts.holding(os.path.realpath(pin_dir), mounted)
    return (mount.point, mount.fstype, "ro" in mount.options.split(",")) if mount else None


def bpffs_known() -> bool:
    """Whether the kernel has bpffs to mount."""
    return "bpf" in _or(lambda: _text("/proc/filesystems"), "").split()


def _size(path: str) -> Optional[int]:
    return _or(lambda: os.stat(path).st_size, None)


def lockdown() -> str:
    """The kernel's lockdown mode: ``none``, ``integrity``, ``confidentiality``, or empty if it has no such thing."""
    words = _or(lambda: _text("/sys/kernel/security/lockdown"), "").split()
    return next((word.strip("[]") for word in words if word.startswith("[")), "")


def _clang() -> Optional[str]:
    from ..compile import compilers

    return compilers.find_clang()


def _missing_headers() -> List[str]:
    machine = glob.glob("/usr/include/*-linux-gnu*/asm/types.h") or ["/usr/include/asm/types.h"]
    wanted = ["/usr/include/bpf/bpf_helpers.h", "/usr/include/linux/bpf.h", machine[0]]
    return [path for path in wanted if not os.path.exists(path)]


def _bcc() -> Tuple[Optional[str], Optional[str]]:
    """The distribution's bcc package, and one that only has its name."""
    places = [
        place
        for pattern in (
            "/usr/lib/python3/dist-packages",
            "/usr/lib/python3*/site-packages",
            "/usr/lib64/python3*/site-packages",
        )
        for place in sorted(glob.glob(pattern + "/bcc")) + sorted(glob.glob(pattern + "/bcc.py"))
    ]
    real = [place for place in places if os.path.exists(os.path.join(place, "libbcc.py"))]
    others = [place for place in places if place not in real]
    return next(iter(real), None), next(iter(others), None)


def _kernel_headers() -> bool:
    build = f"/lib/modules/{os.uname().release}/build"
    return os.path.isdir(build) or os.path.exists("/sys/kernel/kheaders.tar.xz")
