# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inspect the kernel: names of types, probes, pins, ids and information about objects."""

from __future__ import annotations

import ctypes
import errno as errnos
import os
from typing import Iterator

from ..model import LinkInfo, MapInfo, ProgramInfo
from .binding import MAX_IDS, U32, U64, BpfError, Descriptor, Fd, call, fields, library, number_of, path_bytes, text_of
from .constants import LINK_TYPE_CGROUP, LINK_TYPE_NETNS, LINK_TYPE_SOCKMAP

_KINDS = {"bpf-prog": "program", "bpf-map": "map", "bpf_link": "link", "bpf-link": "link", "btf": "btf"}


def map_type_name(number: int) -> str:
    """``sockhash``, ``array`` ...; the number itself if libbpf is older than the kernel's type."""
    return text_of(library().libbpf_bpf_map_type_str(number)) or str(number)


def prog_type_name(number: int) -> str:
    """``sock_ops``, ``sk_msg`` ..."""
    return text_of(library().libbpf_bpf_prog_type_str(number)) or str(number)


def attach_type_name(number: int) -> str:
    """``cgroup_sock_ops``, ``sk_msg_verdict`` ..."""
    return text_of(library().libbpf_bpf_attach_type_str(number)) or str(number)


def link_type_name(number: int) -> str:
    """``cgroup``, ``tracing`` ..."""
    return text_of(library().libbpf_bpf_link_type_str(number)) or str(number)


def num_possible_cpus() -> int:
    """How many values a per-CPU map holds for each key."""
    return call("counting the possible CPUs", "libbpf_num_possible_cpus")


def probe_prog_type(prog_type: int) -> bool:
    """Whether the kernel loads programs of this type; found by loading one."""
    return bool(call(f"probing for program type {prog_type}", "libbpf_probe_bpf_prog_type", prog_type, None))


def probe_map_type(map_type: int) -> bool:
    """Whether the kernel creates maps of this type; found by creating one."""
    return bool(call(f"probing for map type {map_type}", "libbpf_probe_bpf_map_type", map_type, None))


def probe_helper(prog_type: int, helper: int) -> bool:
    """Whether programs of this type may call the helper; found by loading one that does."""
    return bool(call(f"probing for helper {helper}", "libbpf_probe_bpf_helper", prog_type, helper, None))


def get(path: str) -> Fd:
    """Open what is pinned at ``path``: a program, a map or a link (see :func:`kind`)."""
    return Fd(call(f"opening the pin {path}", "bpf_obj_get", path_bytes(path)))


def pin(descriptor: Descriptor, path: str) -> None:
    """Pin at ``path``, which must be on a bpffs and free.

    ``os.unlink`` unpins; ``os.replace`` puts one pin in the place of another in one step.
    """
    call(f"pinning at {path}", "bpf_obj_pin", number_of(descriptor), path_bytes(path))


def kind(descriptor: Descriptor) -> str:
    """``program``, ``map``, ``link`` or ``btf``: what the descriptor refers to.

    :raises BpfError: it is none of these (EINVAL).
    """
    target = os.readlink(f"/proc/self/fd/{number_of(descriptor)}")
    name = _KINDS.get(target.rpartition(":")[2])
    if name:
        return name
    raise BpfError(f"not a BPF object: {target}", errnos.EINVAL)


def program_by_id(number: int) -> Fd:
    """:raises BpfError: no program has this id (ENOENT)."""
    return Fd(call(f"opening program {number}", "bpf_prog_get_fd_by_id", number))


def map_by_id(number: int) -> Fd:
    """:raises BpfError: no map has this id (ENOENT)."""
    return Fd(call(f"opening map {number}", "bpf_map_get_fd_by_id", number))


def link_by_id(number: int) -> Fd:
    """:raises BpfError: no link has this id (ENOENT)."""
    return Fd(call(f"opening link {number}", "bpf_link_get_fd_by_id", number))


def btf_by_id(number: int) -> Fd:
    """:raises BpfError: no BTF has this id (ENOENT)."""
    return Fd(call(f"opening BTF {number}", "bpf_btf_get_fd_by_id", number))


def program_ids() -> Iterator[int]:
    """The ids of all programs, ascending; ones that come or go meanwhile may be missed."""
    return _ids("program", "bpf_prog_get_next_id")


def map_ids() -> Iterator[int]:
    """The ids of all maps, ascending."""
    return _ids("map", "bpf_map_get_next_id")


def link_ids() -> Iterator[int]:
    """The ids of all links, ascending."""
    return _ids("link", "bpf_link_get_next_id")


def _ids(what: str, name: str) -> Iterator[int]:
    number = U32(0)
    for _turn in range(MAX_IDS):
        try:
            call(f"listing {what} ids", name, number.value, ctypes.byref(number))
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return
            raise
        yield number.value


class _ProgInfo(ctypes.Structure):
    _fields_ = fields(
        "u32 type id", "tag tag", "u32 jited_len xlated_len", "u64 jited_insns xlated_insns load_time",
        "u32 created_by_uid nr_map_ids", "u64 map_ids", "name name", "u32 ifindex gpl_compatible",
        "u64 netns_dev netns_ino", "u32 nr_jited_ksyms nr_jited_func_lens", "u64 jited_ksyms jited_func_lens",
        "u32 btf_id _rest",
    )  # fmt: skip


class _MapInfo(ctypes.Structure):
    _fields_ = fields(
        "u32 type id key_size value_size max_entries flags", "name name", "u32 ifindex btf_vmlinux_value_type_id",
        "u64 netns_dev netns_ino", "u32 btf_id btf_key_type_id btf_value_type_id _rest",
    )  # fmt: skip


class _CgroupTarget(ctypes.Structure):
    _fields_ = fields("u64 cgroup_id", "u32 attach_type")


class _MapTarget(ctypes.Structure):
    _fields_ = fields("u32 map_id attach_type")


class _NetnsTarget(ctypes.Structure):
    _fields_ = fields("u32 netns_ino attach_type")


class _Target(ctypes.Union):
    _fields_ = [("cgroup", _CgroupTarget), ("map", _MapTarget), ("netns", _NetnsTarget), ("_room", U64 * 8)]


class _LinkInfo(ctypes.Structure):
    _fields_ = fields("u32 type id prog_id") + [("target", _Target)]


class _BtfInfo(ctypes.Structure):
    _fields_ = fields("u64 data", "u32 size id", "u64 name", "u32 name_len kernel")


def _info(what: str, descriptor: Descriptor, info: ctypes.Structure) -> None:
    size = U32(ctypes.sizeof(info))
    call(
        f"reading about a {what}",
        "bpf_obj_get_info_by_fd",
        number_of(descriptor),
        ctypes.byref(info),
        ctypes.byref(size),
    )


def program_info(descriptor: Descriptor) -> ProgramInfo:
    """What the kernel knows of a program."""
    raw, count = _ProgInfo(), 0
    _info("program", descriptor, raw)
    while raw.nr_map_ids > count:  # bind_map may add one meanwhile
        count = raw.nr_map_ids
        ids = (U32 * count)()
        raw = _ProgInfo(nr_map_ids=count, map_ids=ctypes.addressof(ids))
        _info("program", descriptor, raw)
    maps = tuple(ids[: raw.nr_map_ids]) if count else ()
    return ProgramInfo(
        raw.id, raw.type, text_of(raw.name), bytes(raw.tag).hex(), raw.load_time, raw.created_by_uid, maps, raw.btf_id
    )


def map_info(descriptor: Descriptor) -> MapInfo:
    """What the kernel knows of a map."""
    raw = _MapInfo()
    _info("map", descriptor, raw)
    return MapInfo(
        raw.id,
        raw.type,
        text_of(raw.name),
        raw.key_size,
        raw.value_size,
        raw.max_entries,
        raw.flags,
        raw.btf_id,
        raw.btf_key_type_id,
        raw.btf_value_type_id,
    )


def link_info(descriptor: Descriptor) -> LinkInfo:
    """What the kernel knows of a link."""
    raw = _LinkInfo()
    _info("link", descriptor, raw)
    if raw.type == LINK_TYPE_CGROUP:
        target = raw.target.cgroup
        return LinkInfo(raw.id, raw.type, raw.prog_id, target.cgroup_id, 0, target.attach_type)
    if raw.type == LINK_TYPE_SOCKMAP:
        target = raw.target.map
        return LinkInfo(raw.id, raw.type, raw.prog_id, 0, target.map_id, target.attach_type)
    if raw.type == LINK_TYPE_NETNS:
        target = raw.target.netns
        return LinkInfo(raw.id, raw.type, raw.prog_id, 0, 0, target.attach_type, target.netns_ino)
    return LinkInfo(raw.id, raw.type, raw.prog_id, 0, 0, None)


def btf_data(descriptor: Descriptor) -> bytes:
    """The raw BTF that a descriptor of :func:`btf_by_id` refers to."""
    raw = _BtfInfo()
    _info("BTF", descriptor, raw)
    data = ctypes.create_string_buffer(raw.size)
    raw = _BtfInfo(data=ctypes.addressof(data), size=len(data))
    _info("BTF", descriptor, raw)
    return data.raw
