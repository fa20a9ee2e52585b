# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what this kernel can do: load a tiny program, create a one-entry map, discard both.

It speaks to bpf(2) itself, because preflight must answer on hosts where libbpf is what is missing. All else goes
through :mod:`.libbpf`.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from typing import Dict, Iterable, List, Optional, Tuple

#: bpf(2)'s number by machine (asm/unistd.h); the newer architectures share 280.
_SYSCALL = {
    "x86_64": 321,
    "i386": 357,
    "i686": 357,
    "armv7l": 386,
    "armv6l": 386,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
}
_SYSCALL_OF_OTHERS = 280

_MAP_CREATE, _PROG_LOAD, _PROG_QUERY = 0, 5, 16
PROGRAM_TYPES = {"sock_ops": 13, "sk_skb": 14, "sk_msg": 16}
CGROUP_SOCK_OPS = 3

#: Numbers of helpers (enum bpf_func_id, linux/bpf.h).
HELPERS = {
    "map_lookup_elem": 1,
    "map_update_elem": 2,
    "map_delete_elem": 3,
    "ktime_get_ns": 5,
    "get_smp_processor_id": 8,
    "get_current_task": 35,
    "get_socket_cookie": 46,
    "setsockopt": 49,
    "skb_adjust_room": 50,
    "sock_ops_cb_flags_set": 59,
    "msg_pull_data": 63,
    "sock_hash_update": 70,
    "msg_redirect_hash": 71,
    "probe_read_kernel": 113,
    "get_netns_cookie": 122,
    "ringbuf_output": 130,
    "skc_to_tcp_sock": 137,
    "for_each_map_elem": 164,
    "loop": 181,
}

_EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
_RETURN_1 = struct.pack("<BBhi", 0xB7, 0, 0, 1)
_LICENSE = ctypes.create_string_buffer(b"Dual BSD/GPL")
_LOG_SIZE = 4096
#: The verifier's words for a helper that it does not have, or not for this program type (the last from Linux 6.11 on).
_NO_HELPER = (b"invalid func ", b"unknown func ", b"program of this type cannot use helper")


def map_type(number: int, key_size: int, value_size: int, max_entries: int) -> int:
    """Create such a map.

    :returns: 0, or the errno with which the kernel refused.
    """
    return _bpf(_MAP_CREATE, struct.pack("=5I", number, key_size, value_size, max_entries, 0))


def ring_buffer() -> int:
    """Create a ring buffer of one page: 0 or an errno."""
    return map_type(27, 0, 0, mmap.PAGESIZE)


def program_type(name: str) -> int:
    """Load a program of this type that only returns: 0 or an errno."""
    return _load(PROGRAM_TYPES[name], _RETURN_1 + _EXIT)[0]


def hook(program_type: int, attach_type: int) -> int:
    """Load a program that only returns, for this place: 0 or an errno (EINVAL if the kernel does not know it)."""
    return _load(program_type, _RETURN_1 + _EXIT, attach_type=attach_type)[0]


def atomics(name: str) -> int:
    """Load a program that compares and exchanges a word of its stack (Linux 5.12): 0 or an errno."""
    instructions = b"".join(
        struct.pack("<BBhi", code, registers, offset, value)
        for code, registers, offset, value in (
            (0x7A, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = 0
            (0xB7, 0x00, 0, 0),  # r0 = 0
            (0xB7, 0x01, 0, 1),  # r1 = 1
            (0xDB, 0x1A, -8, 0xF1),  # r0 = cmpxchg(r10 - 8, r0, r1)
        )
    )
    return _load(PROGRAM_TYPES[name], instructions + _RETURN_1 + _EXIT)[0]


def helpers(program: str, names: Iterable[str]) -> Dict[str, Optional[bool]]:
    """Whether programs of a type may call each helper; None if the kernel would not say (no rights)."""
    return {name: _helper(PROGRAM_TYPES[program], HELPERS[name]) for name in names}


def _helper(program: int, number: int) -> Optional[bool]:
    code, log = _load(program, struct.pack("<BBhi", 0x85, 0, 0, number) + _EXIT, wants_log=True)
    if code in (errno.EPERM, errno.ENOSYS):
        return None
    # Its arguments are never right: what counts is that the verifier gets as far as looking at them.
    return not any(words in log for words in _NO_HELPER)


def cgroup_query(path: str) -> int:
    """Ask which sock_ops programs a cgroup has: 0, or an errno (EINVAL without CONFIG_CGROUP_BPF)."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        return _bpf(_PROG_QUERY, struct.pack("=4IQI", directory, CGROUP_SOCK_OPS, 0, 0, 0, 0), opens=False)
    finally:
        os.close(directory)


def _load(
    program: int, instructions: bytes, wants_log: bool = False, attach_type: Optional[int] = None
) -> Tuple[int, bytes]:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    log = ctypes.create_string_buffer(_LOG_SIZE)
    attributes = struct.pack(
        "=IIQQIIQI",
        program,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(_LICENSE),
        1 if wants_log else 0,
        _LOG_SIZE if wants_log else 0,
        ctypes.addressof(log) if wants_log else 0,
        # Before 5.0 this had to be the kernel's own version for some program types; not for ours.
        0,
    )
    if attach_type is not None:
        # Flags, a name of 16 bytes, and a device come before it.
        attributes += struct.pack("=I16xII", 0, 0, attach_type)
    return _bpf(_PROG_LOAD, attributes), log.value


def _bpf(command: int, attributes: bytes, opens: bool = True) -> int:
    """One call of bpf(2): 0 or an errno. A descriptor that it opens is closed at once."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    number = _SYSCALL.get(os.uname().machine, _SYSCALL_OF_OTHERS)
    result = _libc().syscall(ctypes.c_long(number), ctypes.c_long(command), buffer, ctypes.c_ulong(len(attributes)))
    if result < 0:
        return ctypes.get_errno()
    if opens:
        os.close(result)
    return 0


_loaded: List[ctypes.CDLL] = []


def _libc() -> ctypes.CDLL:
    if not _loaded:
        library = ctypes.CDLL(None, use_errno=True)
        library.syscall.restype = ctypes.c_long
        _loaded.append(library)
    return _loaded[0]
