# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's BPF objects, through ``libbpf.so.1``; no other file talks to that library.

One function per C call. Every symbol is of LIBBPF_1.0 or older, so each libbpf 1.x will do. The library is loaded at
the first call, not at import. libbpf itself raises RLIMIT_MEMLOCK on kernels that charge maps to it (to 5.10).

File descriptors: a function that opens something returns an :class:`Fd`, whose owner closes it (``with``, ``close()``,
or when it is no longer referenced). A function that uses a descriptor takes an Fd or an int and leaves it open.

Failing calls raise :class:`BpfError`, with ``errno`` and, as ``detail``, what libbpf and the verifier said.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from .. import distribution
from ..errors import SockredirError

# Numbers of <linux/bpf.h>.
PROG_TYPE_SOCK_OPS = 13
PROG_TYPE_SK_SKB = 14
PROG_TYPE_SK_MSG = 16
ATTACH_CGROUP_SOCK_OPS = 3
ATTACH_SK_SKB_STREAM_VERDICT = 5
ATTACH_SK_MSG_VERDICT = 7
MAP_TYPE_HASH = 1
MAP_TYPE_ARRAY = 2
MAP_TYPE_PERCPU_HASH = 5
MAP_TYPE_PERCPU_ARRAY = 6
MAP_TYPE_LRU_PERCPU_HASH = 10
MAP_TYPE_SOCKMAP = 15
MAP_TYPE_SOCKHASH = 18
MAP_TYPE_PERCPU_CGROUP_STORAGE = 21
MAP_TYPE_RINGBUF = 27
LINK_TYPE_CGROUP = 3
LINK_TYPE_SOCKMAP = 14
F_ALLOW_OVERRIDE = 1
F_ALLOW_MULTI = 2
F_REPLACE = 4
F_QUERY_EFFECTIVE = 1
MAP_ANY, MAP_NOEXIST, MAP_EXIST = 0, 1, 2
HELPER_GET_NETNS_COOKIE = 122

_PERCPU_MAPS = (MAP_TYPE_PERCPU_HASH, MAP_TYPE_PERCPU_ARRAY, MAP_TYPE_LRU_PERCPU_HASH, MAP_TYPE_PERCPU_CGROUP_STORAGE)
_KINDS = {"bpf-prog": "program", "bpf-map": "map", "bpf_link": "link", "bpf-link": "link", "btf": "btf"}
_NAME_BYTES = 16
_LOG_BYTES = 16 << 20
_MAX_IDS = 1 << 20

LIBRARY = "libbpf.so.1"

Descriptor = Union["Fd", int]


class Missing(SockredirError):
    """The library is not on this host."""


class BpfError(SockredirError):
    """A call that failed.

    :param errno: int, the positive error number (``errno.EPERM`` ...).
    """

    def __init__(self, message: str, errno: int, cure: str = "", detail: str = "") -> None:
        super().__init__(message, cure, detail)
        self.errno = errno


class Fd:
    """An open file descriptor and the duty to close it."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        """:raises ValueError: it has been closed or given away."""
        if self._number < 0:
            raise ValueError("the descriptor is closed")
        return self._number

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def detach(self) -> int:
        """The number; closing it is the caller's duty from now on."""
        number = self.fileno()
        self._number = -1
        return number

    def __enter__(self) -> Fd:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _number(descriptor: Descriptor) -> int:
    return descriptor if isinstance(descriptor, int) else descriptor.fileno()


# --- the library ---

_INT, _U32, _U64 = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64
_SIZE, _STR, _PTR = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
_PRINT = ctypes.CFUNCTYPE(_INT, _INT, _STR, _PTR)
_SAMPLE = ctypes.CFUNCTYPE(_INT, _PTR, _PTR, _SIZE)

_PROTOTYPES: Dict[str, Tuple[Any, List[Any]]] = {
    "libbpf_set_print": (_PTR, [_PRINT]),
    "libbpf_major_version": (_U32, []),
    "libbpf_minor_version": (_U32, []),
    "libbpf_strerror": (_INT, [_INT, _PTR, _SIZE]),
    "libbpf_num_possible_cpus": (_INT, []),
    "libbpf_bpf_map_type_str": (_STR, [_INT]),
    "libbpf_bpf_prog_type_str": (_STR, [_INT]),
    "libbpf_bpf_attach_type_str": (_STR, [_INT]),
    "libbpf_bpf_link_type_str": (_STR, [_INT]),
    "libbpf_probe_bpf_prog_type": (_INT, [_INT, _PTR]),
    "libbpf_probe_bpf_map_type": (_INT, [_INT, _PTR]),
    "libbpf_probe_bpf_helper": (_INT, [_INT, _INT, _PTR]),
    "bpf_obj_get": (_INT, [_STR]),
    "bpf_obj_pin": (_INT, [_INT, _STR]),
    "bpf_obj_get_info_by_fd": (_INT, [_INT, _PTR, _PTR]),
    "bpf_prog_get_fd_by_id": (_INT, [_U32]),
    "bpf_map_get_fd_by_id": (_INT, [_U32]),
    "bpf_link_get_fd_by_id": (_INT, [_U32]),
    "bpf_btf_get_fd_by_id": (_INT, [_U32]),
    "bpf_prog_get_next_id": (_INT, [_U32, _PTR]),
    "bpf_map_get_next_id": (_INT, [_U32, _PTR]),
    "bpf_link_get_next_id": (_INT, [_U32, _PTR]),
    "bpf_prog_query": (_INT, [_INT, _INT, _U32, _PTR, _PTR, _PTR]),
    "bpf_prog_attach_opts": (_INT, [_INT, _INT, _INT, _PTR]),
    "bpf_prog_detach2": (_INT, [_INT, _INT, _INT]),
    "bpf_link_create": (_INT, [_INT, _INT, _INT, _PTR]),
    "bpf_link_update": (_INT, [_INT, _INT, _PTR]),
    "bpf_link_detach": (_INT, [_INT]),
    "bpf_map_create": (_INT, [_INT, _STR, _U32, _U32, _U32, _PTR]),
    "bpf_map_lookup_elem": (_INT, [_INT, _STR, _PTR]),
    "bpf_map_update_elem": (_INT, [_INT, _STR, _STR, _U64]),
    "bpf_map_delete_elem": (_INT, [_INT, _STR]),
    "bpf_map_get_next_key": (_INT, [_INT, _STR, _PTR]),
    "bpf_map_lookup_batch": (_INT, [_INT, _PTR, _PTR, _PTR, _PTR, _PTR, _PTR]),
    "bpf_prog_load": (_INT, [_INT, _STR, _STR, _STR, _SIZE, _PTR]),
    "bpf_object__open_mem": (_PTR, [_STR, _SIZE, _PTR]),
    "bpf_object__load": (_INT, [_PTR]),
    "bpf_object__close": (None, [_PTR]),
    "bpf_object__btf": (_PTR, [_PTR]),
    "bpf_object__next_program": (_PTR, [_PTR, _PTR]),
    "bpf_object__next_map": (_PTR, [_PTR, _PTR]),
    "btf__raw_data": (_PTR, [_PTR, _PTR]),
    "bpf_program__name": (_STR, [_PTR]),
    "bpf_program__section_name": (_STR, [_PTR]),
    "bpf_program__type": (_INT, [_PTR]),
    "bpf_program__set_type": (_INT, [_PTR, _INT]),
    "bpf_program__expected_attach_type": (_INT, [_PTR]),
    "bpf_program__set_expected_attach_type": (_INT, [_PTR, _INT]),
    "bpf_program__set_autoload": (_INT, [_PTR, ctypes.c_bool]),
    "bpf_program__fd": (_INT, [_PTR]),
    "bpf_map__name": (_STR, [_PTR]),
    "bpf_map__type": (_INT, [_PTR]),
    "bpf_map__key_size": (_U32, [_PTR]),
    "bpf_map__value_size": (_U32, [_PTR]),
    "bpf_map__max_entries": (_U32, [_PTR]),
    "bpf_map__map_flags": (_U32, [_PTR]),
    "bpf_map__btf_key_type_id": (_U32, [_PTR]),
    "bpf_map__btf_value_type_id": (_U32, [_PTR]),
    "bpf_map__set_max_entries": (_INT, [_PTR, _U32]),
    "bpf_map__is_internal": (ctypes.c_bool, [_PTR]),
    "bpf_map__initial_value": (_PTR, [_PTR, _PTR]),
    "bpf_map__set_initial_value": (_INT, [_PTR, _STR, _SIZE]),
    "bpf_map__reuse_fd": (_INT, [_PTR, _INT]),
    "bpf_map__fd": (_INT, [_PTR]),
    "ring_buffer__new": (_PTR, [_INT, _SAMPLE, _PTR, _PTR]),
    "ring_buffer__poll": (_INT, [_PTR, _INT]),
    "ring_buffer__consume": (_INT, [_PTR]),
    "ring_buffer__free": (None, [_PTR]),
}

_log: List[str] = []
_loaded: List[ctypes.CDLL] = []


def library() -> ctypes.CDLL:
    """The library itself, loaded at the first call.

    :raises Missing: there is none.
    :raises SockredirError: there is only one that is too old.
    """
    if not _loaded:
        _loaded.append(_load_library())
    return _loaded[0]


def _load_library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise Missing(f"{LIBRARY} is not on this host", _install(), str(error)) from error
    for name, (result, arguments) in _PROTOTYPES.items():
        try:
            function = getattr(lib, name)
        except AttributeError as error:
            raise SockredirError(f"{LIBRARY} on this host is older than 1.0: it has no {name}", _install()) from error
        function.restype, function.argtypes = result, arguments
    lib.libbpf_set_print(_capture)
    return lib


def _install() -> str:
    return "run: " + distribution.install("libbpf", distribution.read())


@_PRINT
def _capture(level: int, text: bytes, arguments: int) -> int:
    """libbpf's print function: keep warnings and the verifier's log for the error that follows."""
    if level > 1:  # LIBBPF_DEBUG
        return 0
    libc = ctypes.CDLL(None)
    line = ctypes.c_char_p()
    # A va_list is a pointer, or passed as one, on every ABI that libbpf runs on; vasprintf reads it just once.
    if libc.vasprintf(ctypes.byref(line), text, _PTR(arguments)) >= 0:
        _log.append((line.value or b"").decode("utf-8", "replace"))
        libc.free(line)
    return 0


def version() -> Tuple[int, int]:
    """Major and minor version of libbpf."""
    return library().libbpf_major_version(), library().libbpf_minor_version()


def _call(what: str, name: str, *arguments: Any) -> int:
    """Call a function that returns a negative errno on failure."""
    function = getattr(library(), name)
    _log.clear()
    result = function(*arguments)
    if result < 0:
        raise _error(what, -result)
    return result


def _open(what: str, name: str, *arguments: Any) -> int:
    """Call a function that returns a pointer, and NULL with errno on failure."""
    function = getattr(library(), name)
    _log.clear()
    ctypes.set_errno(0)
    pointer = function(*arguments)
    if not pointer:
        raise _error(what, ctypes.get_errno())
    return pointer


def _error(what: str, errno: int) -> BpfError:
    detail = "".join(_log).strip()
    reason = ctypes.create_string_buffer(256)
    library().libbpf_strerror(errno, reason, len(reason))  # knows libbpf's own numbers (from 4000) too
    message = f"{what}: {_text(reason.value)} ({errnos.errorcode.get(errno, errno)})"
    return BpfError(message, errno, _cure(errno), detail)


def _cure(errno: int) -> str:
    if errno not in (errnos.EPERM, errnos.EACCES):
        return ""
    if os.geteuid() != 0:
        return "run it as root (become: true)"
    return ""


_TYPES = {
    "u32": _U32,
    "u64": _U64,
    "int": _INT,
    "size": _SIZE,
    "str": _STR,
    "ptr": _PTR,
    "tag": ctypes.c_ubyte * 8,
    "name": ctypes.c_char * _NAME_BYTES,
}


def _layout(*groups: str) -> List[Tuple[str, Any]]:
    """A C struct's fields from ``"type name name ..."`` groups."""
    return [(name, _TYPES[group.split()[0]]) for group in groups for name in group.split()[1:]]


def _path(path: str) -> bytes:
    return os.fsencode(path)


def _text(value: Optional[bytes]) -> str:
    return (value or b"").decode("utf-8", "replace")


# --- names and probes ---


def map_type_name(number: int) -> str:
    """``sockhash``, ``array`` ...; the number itself where libbpf is older than the kernel's type."""
    return _text(library().libbpf_bpf_map_type_str(number)) or str(number)


def prog_type_name(number: int) -> str:
    """``sock_ops``, ``sk_msg`` ..."""
    return _text(library().libbpf_bpf_prog_type_str(number)) or str(number)


def attach_type_name(number: int) -> str:
    """``cgroup_sock_ops``, ``sk_msg_verdict`` ..."""
    return _text(library().libbpf_bpf_attach_type_str(number)) or str(number)


def link_type_name(number: int) -> str:
    """``cgroup``, ``tracing`` ..."""
    return _text(library().libbpf_bpf_link_type_str(number)) or str(number)


def num_possible_cpus() -> int:
    """How many values a per-CPU map holds for each key."""
    return _call("counting the possible CPUs", "libbpf_num_possible_cpus")


def probe_prog_type(prog_type: int) -> bool:
    """Whether the kernel loads programs of this type; found by loading one."""
    return bool(_call(f"probing for program type {prog_type}", "libbpf_probe_bpf_prog_type", prog_type, None))


def probe_map_type(map_type: int) -> bool:
    """Whether the kernel creates maps of this type; found by creating one."""
    return bool(_call(f"probing for map type {map_type}", "libbpf_probe_bpf_map_type", map_type, None))


def probe_helper(prog_type: int, helper: int) -> bool:
    """Whether programs of this type may call the helper; found by loading one that does."""
    return bool(_call(f"probing for helper {helper}", "libbpf_probe_bpf_helper", prog_type, helper, None))


# --- pins, ids, info ---


def get(path: str) -> Fd:
    """Open what is pinned at ``path``: a program, a map or a link (see :func:`kind`)."""
    return Fd(_call(f"opening the pin {path}", "bpf_obj_get", _path(path)))


def pin(descriptor: Descriptor, path: str) -> None:
    """Pin at ``path``, which must be on a bpffs and free.

    ``os.unlink`` unpins; ``os.replace`` puts one pin in the place of another in one step.
    """
    _call(f"pinning at {path}", "bpf_obj_pin", _number(descriptor), _path(path))


def kind(descriptor: Descriptor) -> str:
    """``program``, ``map``, ``link`` or ``btf``: what the descriptor refers to.

    :raises BpfError: it is none of these (EINVAL).
    """
    target = os.readlink(f"/proc/self/fd/{_number(descriptor)}")
    name = _KINDS.get(target.rpartition(":")[2])
    if name:
        return name
    raise BpfError(f"not a BPF object: {target}", errnos.EINVAL)


def program_by_id(number: int) -> Fd:
    """:raises BpfError: no program has this id (ENOENT)."""
    return Fd(_call(f"opening program {number}", "bpf_prog_get_fd_by_id", number))


def map_by_id(number: int) -> Fd:
    """:raises BpfError: no map has this id (ENOENT)."""
    return Fd(_call(f"opening map {number}", "bpf_map_get_fd_by_id", number))


def link_by_id(number: int) -> Fd:
    """:raises BpfError: no link has this id (ENOENT)."""
    return Fd(_call(f"opening link {number}", "bpf_link_get_fd_by_id", number))


def btf_by_id(number: int) -> Fd:
    """:raises BpfError: no BTF has this id (ENOENT)."""
    return Fd(_call(f"opening BTF {number}", "bpf_btf_get_fd_by_id", number))


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
    number = _U32(0)
    for _turn in range(_MAX_IDS):
        try:
            _call(f"listing {what} ids", name, number.value, ctypes.byref(number))
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return
            raise
        yield number.value


class _ProgInfo(ctypes.Structure):
    _fields_ = _layout(
        "u32 type id", "tag tag", "u32 jited_len xlated_len", "u64 jited_insns xlated_insns load_time",
        "u32 created_by_uid nr_map_ids", "u64 map_ids", "name name", "u32 ifindex gpl_compatible",
        "u64 netns_dev netns_ino", "u32 nr_jited_ksyms nr_jited_func_lens", "u64 jited_ksyms jited_func_lens",
        "u32 btf_id _rest",
    )  # fmt: skip


class _MapInfo(ctypes.Structure):
    _fields_ = _layout(
        "u32 type id key_size value_size max_entries flags", "name name", "u32 ifindex btf_vmlinux_value_type_id",
        "u64 netns_dev netns_ino", "u32 btf_id btf_key_type_id btf_value_type_id _rest",
    )  # fmt: skip


class _CgroupTarget(ctypes.Structure):
    _fields_ = _layout("u64 cgroup_id", "u32 attach_type")


class _MapTarget(ctypes.Structure):
    _fields_ = _layout("u32 map_id attach_type")


class _Target(ctypes.Union):
    _fields_ = [("cgroup", _CgroupTarget), ("map", _MapTarget), ("_room", _U64 * 8)]


class _LinkInfo(ctypes.Structure):
    _fields_ = _layout("u32 type id prog_id") + [("target", _Target)]


class _BtfInfo(ctypes.Structure):
    _fields_ = _layout("u64 data", "u32 size id", "u64 name", "u32 name_len kernel")


class ProgramInfo(NamedTuple):
    """:ivar tag: str, 16 hex digits; blind to rodata and to the attach type, so no identity.
    :ivar load_time_ns: int, nanoseconds since boot.
    :ivar map_ids: the maps the program uses, .rodata and the like among them.
    """

    id: int
    type: int
    name: str
    tag: str
    load_time_ns: int
    uid: int
    map_ids: Tuple[int, ...]
    btf_id: int


class MapInfo(NamedTuple):
    """Sizes in bytes; ``max_entries`` counts entries (bytes for a ring buffer)."""

    id: int
    type: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


class LinkInfo(NamedTuple):
    """:ivar cgroup_id: of a cgroup link, 0 once its cgroup is gone; 0 for other links.
    :ivar map_id: of a sockmap link; 0 for other links.
    :ivar attach_type: of these two; None for other links.
    """

    id: int
    type: int
    program_id: int
    cgroup_id: int
    map_id: int
    attach_type: Optional[int]


def _info(what: str, descriptor: Descriptor, info: ctypes.Structure) -> None:
    size = _U32(ctypes.sizeof(info))
    _call(
        f"reading about a {what}", "bpf_obj_get_info_by_fd", _number(descriptor), ctypes.byref(info), ctypes.byref(size)
    )


def program_info(descriptor: Descriptor) -> ProgramInfo:
    """What the kernel knows of a program."""
    raw, count = _ProgInfo(), 0
    _info("program", descriptor, raw)
    while raw.nr_map_ids > count:  # bind_map may add one meanwhile
        count = raw.nr_map_ids
        ids = (_U32 * count)()
        raw = _ProgInfo(nr_map_ids=count, map_ids=ctypes.addressof(ids))
        _info("program", descriptor, raw)
    maps = tuple(ids[: raw.nr_map_ids]) if count else ()
    return ProgramInfo(
        raw.id, raw.type, _text(raw.name), bytes(raw.tag).hex(), raw.load_time, raw.created_by_uid, maps, raw.btf_id
    )


def map_info(descriptor: Descriptor) -> MapInfo:
    """What the kernel knows of a map."""
    raw = _MapInfo()
    _info("map", descriptor, raw)
    return MapInfo(
        raw.id,
        raw.type,
        _text(raw.name),
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
    return LinkInfo(raw.id, raw.type, raw.prog_id, 0, 0, None)


def btf_data(descriptor: Descriptor) -> bytes:
    """The raw BTF that a descriptor of :func:`btf_by_id` refers to."""
    raw = _BtfInfo()
    _info("BTF", descriptor, raw)
    data = ctypes.create_string_buffer(raw.size)
    raw = _BtfInfo(data=ctypes.addressof(data), size=len(data))
    _info("BTF", descriptor, raw)
    return data.raw


# --- attachments ---


class Query(NamedTuple):
    """:ivar attach_flags: int, ``F_ALLOW_*`` the target was first attached with; 0 for effective queries and maps."""

    program_ids: List[int]
    attach_flags: int


def query(target: Descriptor, attach_type: int, flags: int = 0) -> Query:
    """The programs attached to a cgroup (a descriptor of its directory) or to a map (Linux 5.18).

    :param flags: ``F_QUERY_EFFECTIVE`` for what runs there, inherited programs included.
    """
    room = 64
    while True:
        ids, count, attach_flags = (_U32 * room)(), _U32(room), _U32(0)
        try:
            _call(
                "asking what is attached",
                "bpf_prog_query",
                _number(target),
                attach_type,
                flags,
                ctypes.byref(attach_flags),
                ids,
                ctypes.byref(count),
            )
        except BpfError as error:
            if error.errno != errnos.ENOSPC or room >= _MAX_IDS:
                raise
            room = max(room * 2, count.value)
            continue
        return Query(list(ids[: count.value]), attach_flags.value)


class _AttachOpts(ctypes.Structure):
    _fields_ = _layout("size sz", "u32 flags", "int replace_prog_fd")


def attach(
    program: Descriptor, target: Descriptor, attach_type: int, flags: int = 0, replace: Optional[Descriptor] = None
) -> None:
    """Attach to a cgroup or a map without a link.

    :param flags: for a cgroup ``F_ALLOW_MULTI``, and ``F_REPLACE`` with ``replace`` (Linux 5.6); for a map 0, which
        takes the place of what is attached.
    :param replace: the attached program that this one takes the place of.
    """
    opts = _AttachOpts(ctypes.sizeof(_AttachOpts), flags, 0 if replace is None else _number(replace))
    _call("attaching", "bpf_prog_attach_opts", _number(program), _number(target), attach_type, ctypes.byref(opts))


def detach(program: Descriptor, target: Descriptor, attach_type: int) -> None:
    """Take this program, and no other, off a cgroup or map."""
    _call("detaching", "bpf_prog_detach2", _number(program), _number(target), attach_type)


def create_link(program: Descriptor, target: Descriptor, attach_type: int) -> Fd:
    """Attach by a link (cgroups Linux 5.7, sockmaps 6.10): attached while a descriptor or pin of the link lives."""
    return Fd(_call("linking", "bpf_link_create", _number(program), _number(target), attach_type, None))


class _LinkUpdateOpts(ctypes.Structure):
    _fields_ = _layout("size sz", "u32 flags old_prog_fd")


def update_link(link: Descriptor, program: Descriptor, old_program: Optional[Descriptor] = None) -> None:
    """Replace the link's program in one step.

    :param old_program: refuse (EPERM) where the link has another one than this.
    :raises BpfError: ENOLINK where the cgroup is gone.
    """
    opts = _LinkUpdateOpts(ctypes.sizeof(_LinkUpdateOpts), 0, 0)
    if old_program is not None:
        opts.flags, opts.old_prog_fd = F_REPLACE, _number(old_program)
    _call("updating the link", "bpf_link_update", _number(link), _number(program), ctypes.byref(opts))


def detach_link(link: Descriptor) -> None:
    """Detach at once, whoever else holds the link (Linux 5.9)."""
    _call("detaching the link", "bpf_link_detach", _number(link))


# --- maps ---


class _MapCreateOpts(ctypes.Structure):
    _fields_ = _layout(
        "size sz",
        "u32 btf_fd btf_key_type_id btf_value_type_id btf_vmlinux_value_type_id inner_map_fd map_flags",
    )


def create_map(map_type: int, name: str, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> Fd:
    """A new map, without BTF; names are cut to what the kernel keeps."""
    opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags)
    short = name.encode()[: _NAME_BYTES - 1]
    return Fd(
        _call(
            f"creating the map {name}",
            "bpf_map_create",
            map_type,
            short,
            key_size,
            value_size,
            max_entries,
            ctypes.byref(opts),
        )
    )


class Map:
    """An open map. Keys and values are bytes of exactly its sizes; a per-CPU value is one padded slot per possible CPU.

    :param descriptor: owned from now on.
    """

    def __init__(self, descriptor: Fd) -> None:
        self._fd = descriptor
        self.info = map_info(descriptor)
        self.value_bytes = self.info.value_size
        if self.info.type in _PERCPU_MAPS:
            self.value_bytes = (self.info.value_size + 7) // 8 * 8 * num_possible_cpus()

    @classmethod
    def open_pin(cls, path: str) -> Map:
        """:raises BpfError: nothing, or no map, is pinned there."""
        descriptor = get(path)
        found = kind(descriptor)
        if found != "map":
            raise BpfError(f"{path} is a pin of a {found}, not of a map", errnos.EINVAL)
        return cls(descriptor)

    @classmethod
    def open_id(cls, number: int) -> Map:
        """:raises BpfError: no map has this id (ENOENT)."""
        return cls(map_by_id(number))

    def fileno(self) -> int:
        return self._fd.fileno()

    def close(self) -> None:
        self._fd.close()

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _key(self, key: bytes) -> bytes:
        # The C side reads key_size bytes whatever is passed.
        if len(key) != self.info.key_size:
            raise ValueError(f"map {self.info.name} has keys of {self.info.key_size} bytes, not {len(key)}")
        return key

    def lookup(self, key: bytes) -> Optional[bytes]:
        """The key's value, or None where the map has no such key."""
        value = ctypes.create_string_buffer(self.value_bytes)
        try:
            _call(f"reading from map {self.info.name}", "bpf_map_lookup_elem", self.fileno(), self._key(key), value)
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = MAP_ANY) -> None:
        """Write one entry; ``MAP_NOEXIST`` and ``MAP_EXIST`` make it conditional (EEXIST, ENOENT)."""
        if len(value) != self.value_bytes:
            raise ValueError(f"map {self.info.name} has values of {self.value_bytes} bytes, not {len(value)}")
        _call(f"writing to map {self.info.name}", "bpf_map_update_elem", self.fileno(), self._key(key), value, flags)

    def delete(self, key: bytes) -> bool:
        """Remove one entry; False where there was none."""
        try:
            _call(f"deleting from map {self.info.name}", "bpf_map_delete_elem", self.fileno(), self._key(key))
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return False
            raise
        return True

    def next_key(self, key: Optional[bytes]) -> Optional[bytes]:
        """The key after this one (None: the first), or None at the end. A key that is gone starts over."""
        following = ctypes.create_string_buffer(self.info.key_size)
        start = None if key is None else self._key(key)
        try:
            _call(f"listing map {self.info.name}", "bpf_map_get_next_key", self.fileno(), start, following)
        except BpfError as error:
            if error.errno == errnos.ENOENT:
                return None
            raise
        return following.raw

    def keys(self) -> Iterator[bytes]:
        """Every key; while others write, some may be missed or come twice."""
        key = None
        # Deletions can restart the walk: no more turns than twice the size.
        for _turn in range(2 * self.info.max_entries + 1):
            key = self.next_key(key)
            if key is None:
                return
            yield key

    def items(self) -> Iterator[Tuple[bytes, bytes]]:
        """Every key with its value, in batches where the kernel has them for this type (hash maps: Linux 5.6)."""
        try:
            batch = self._batch(None, 4096)
        except BpfError as error:
            if error.errno not in (errnos.EINVAL, errnos.ENOTSUP, 524):  # 524: the kernel's own ENOTSUPP
                raise
            for key in self.keys():
                value = self.lookup(key)
                if value is not None:
                    yield key, value
            return
        while True:
            entries, position = batch
            yield from entries
            if position is None:
                return
            batch = self._batch(position, 4096)

    def _batch(self, position: Any, room: int) -> Tuple[List[Tuple[bytes, bytes]], Any]:
        """Up to ``room`` entries from ``position`` (None: the start), and the next position, None at the end."""
        key_size, value_size = self.info.key_size, self.value_bytes
        while True:
            following: Optional[ctypes.Array[ctypes.c_char]] = ctypes.create_string_buffer(max(key_size, 8))
            keys, values = ctypes.create_string_buffer(key_size * room), ctypes.create_string_buffer(value_size * room)
            count = _U32(room)
            try:
                _call(
                    f"reading map {self.info.name}",
                    "bpf_map_lookup_batch",
                    self.fileno(),
                    position,
                    following,
                    keys,
                    values,
                    ctypes.byref(count),
                    None,
                )
            except BpfError as error:
                if error.errno == errnos.ENOSPC and room < 1 << 24:  # one bucket has more entries than there is room
                    room *= 4
                    continue
                if error.errno != errnos.ENOENT:
                    raise
                following = None
            raw_keys, raw_values = keys.raw, values.raw
            entries = [
                (raw_keys[i * key_size : (i + 1) * key_size], raw_values[i * value_size : (i + 1) * value_size])
                for i in range(count.value)
            ]
            return entries, following


# --- programs from instructions ---


class _ProgLoadOpts(ctypes.Structure):
    _fields_ = _layout(
        "size sz", "int attempts", "u32 expected_attach_type prog_btf_fd prog_flags prog_ifindex kern_version",
        "u32 attach_btf_id attach_prog_fd attach_btf_obj_fd", "ptr fd_array func_info",
        "u32 func_info_cnt func_info_rec_size", "ptr line_info",
        "u32 line_info_cnt line_info_rec_size log_level log_size", "ptr log_buf",
    )  # fmt: skip


def load_program(
    prog_type: int, name: str, instructions: bytes, attach_type: int = 0, licence: str = "Dual BSD/GPL"
) -> Fd:
    """Load instructions (8 bytes each, map descriptors already in them).

    :raises BpfError: with the verifier's log as ``detail``.
    """
    log = ctypes.create_string_buffer(_LOG_BYTES)
    opts = _ProgLoadOpts(
        sz=ctypes.sizeof(_ProgLoadOpts),
        expected_attach_type=attach_type,
        log_size=len(log),
        log_buf=ctypes.addressof(log),
    )
    short = name.encode()[: _NAME_BYTES - 1]
    try:
        return Fd(
            _call(
                f"loading the program {name}",
                "bpf_prog_load",
                prog_type,
                short,
                licence.encode(),
                instructions,
                len(instructions) // 8,
                ctypes.byref(opts),
            )
        )
    except BpfError as error:
        error.detail = _text(log.value).strip() or error.detail
        raise


# --- object files ---


class _OpenOpts(ctypes.Structure):
    _fields_ = _layout("size sz", "str object_name")


class Object:
    """An object file in libbpf's hands: opened, adjusted, loaded. Closing it closes its descriptors; pins stay.

    :param data: bytes, the ELF file.
    :param name: str, begins the names of its .rodata and .bss maps.
    :raises BpfError: libbpf cannot use the file; ``detail`` says why.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._pointer = 0
        self._data = data  # libbpf reads from it, without a copy
        opts = _OpenOpts(ctypes.sizeof(_OpenOpts), name.encode())
        self._pointer = _open(f"opening the object {name}", "bpf_object__open_mem", data, len(data), ctypes.byref(opts))
        self.name = name

    def programs(self) -> List[ObjectProgram]:
        """In the order of the file."""
        return [ObjectProgram(self, pointer) for pointer in self._walk("bpf_object__next_program")]

    def maps(self) -> List[ObjectMap]:
        """In the order of the file; internal ones (.rodata ...) too."""
        return [ObjectMap(self, pointer) for pointer in self._walk("bpf_object__next_map")]

    def _walk(self, name: str) -> Iterator[int]:
        following, pointer = getattr(library(), name), None
        while True:
            pointer = following(self._pointer, pointer)
            if not pointer:
                return
            yield pointer

    def btf(self) -> bytes:
        """The object's BTF, its variables' offsets settled; empty where it was compiled without ``-g``."""
        pointer, size = library().bpf_object__btf(self._pointer), _U32(0)
        if not pointer:
            return b""
        data = library().btf__raw_data(pointer, ctypes.byref(size))
        return ctypes.string_at(data, size.value) if data else b""

    def load(self) -> None:
        """Create its maps and load its programs: all of them, or none stays.

        :raises BpfError: with the verifier's log as ``detail``.
        """
        _call(f"loading the object {self.name}", "bpf_object__load", self._pointer)

    def close(self) -> None:
        pointer, self._pointer = self._pointer, 0
        if pointer:
            library().bpf_object__close(pointer)

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class ObjectProgram:
    """A program of an :class:`Object`; lives as long as that."""

    def __init__(self, owner: Object, pointer: int) -> None:
        self._owner, self._pointer = owner, pointer
        self.name = _text(library().bpf_program__name(pointer))
        self.section = _text(library().bpf_program__section_name(pointer))

    @property
    def type(self) -> int:
        return library().bpf_program__type(self._pointer)

    @property
    def attach_type(self) -> int:
        return library().bpf_program__expected_attach_type(self._pointer)

    def set_type(self, prog_type: int, attach_type: int) -> None:
        """Before loading: what the section's name does not say, or says otherwise."""
        _call(f"setting the type of {self.name}", "bpf_program__set_type", self._pointer, prog_type)
        _call(
            f"setting the attach type of {self.name}",
            "bpf_program__set_expected_attach_type",
            self._pointer,
            attach_type,
        )

    def set_autoload(self, wanted: bool) -> None:
        """Before loading: leave this program out."""
        _call(f"choosing {self.name}", "bpf_program__set_autoload", self._pointer, wanted)

    def fileno(self) -> int:
        """The loaded program's descriptor, which the object owns."""
        return _call(f"opening the program {self.name}", "bpf_program__fd", self._pointer)


class ObjectMap:
    """A map of an :class:`Object`; lives as long as that."""

    def __init__(self, owner: Object, pointer: int) -> None:
        self._owner, self._pointer = owner, pointer
        self.name = _text(library().bpf_map__name(pointer))

    @property
    def type(self) -> int:
        return library().bpf_map__type(self._pointer)

    @property
    def key_size(self) -> int:
        return library().bpf_map__key_size(self._pointer)

    @property
    def value_size(self) -> int:
        return library().bpf_map__value_size(self._pointer)

    @property
    def max_entries(self) -> int:
        return library().bpf_map__max_entries(self._pointer)

    @property
    def flags(self) -> int:
        return library().bpf_map__map_flags(self._pointer)

    @property
    def key_type_id(self) -> int:
        """In the object's BTF; 0 where the map was defined by sizes alone."""
        return library().bpf_map__btf_key_type_id(self._pointer)

    @property
    def value_type_id(self) -> int:
        """In the object's BTF; 0 where the map was defined by sizes alone."""
        return library().bpf_map__btf_value_type_id(self._pointer)

    @property
    def internal(self) -> bool:
        """Whether libbpf made it for global variables (.rodata, .data, .bss, .kconfig)."""
        return library().bpf_map__is_internal(self._pointer)

    def set_max_entries(self, entries: int) -> None:
        """Before loading."""
        _call(f"setting the size of {self.name}", "bpf_map__set_max_entries", self._pointer, entries)

    def initial_value(self) -> bytes:
        """What the global variables of an internal map hold at load; empty for other maps."""
        size = _SIZE(0)
        data = library().bpf_map__initial_value(self._pointer, ctypes.byref(size))
        return ctypes.string_at(data, size.value) if data else b""

    def set_initial_value(self, value: bytes) -> None:
        """Before loading; of the same size."""
        _call(f"setting the variables in {self.name}", "bpf_map__set_initial_value", self._pointer, value, len(value))

    def reuse(self, descriptor: Descriptor) -> None:
        """Before loading: use this existing map. libbpf copies the descriptor.

        Its name, type and sizes are taken from the existing map: compare them first.
        """
        _call(f"reusing a map as {self.name}", "bpf_map__reuse_fd", self._pointer, _number(descriptor))

    def fileno(self) -> int:
        """The created or reused map's descriptor, which the object owns."""
        return _call(f"opening the map {self.name}", "bpf_map__fd", self._pointer)


# --- ring buffers ---


class RingBuffer:
    """The consumer of a ring buffer map.

    :param descriptor: of the map; must stay open while this lives.
    :param on_sample: called with each record's bytes inside :meth:`poll` or :meth:`consume`; what it raises ends that.
    """

    def __init__(self, descriptor: Descriptor, on_sample: Callable[[bytes], None]) -> None:
        self._pointer = 0
        self._on_sample = on_sample
        self._raised: Optional[BaseException] = None
        self._callback = _SAMPLE(self._sample)
        self._pointer = _open(
            "opening the ring buffer", "ring_buffer__new", _number(descriptor), self._callback, None, None
        )

    def _sample(self, _context: int, data: int, size: int) -> int:
        try:
            self._on_sample(ctypes.string_at(data, size))
        except BaseException as error:  # pylint: disable=broad-exception-caught  # must not unwind through C
            self._raised = error
            return -errnos.ECANCELED
        return 0

    def poll(self, timeout_ms: int) -> int:
        """Wait for records at most ``timeout_ms`` milliseconds (-1: for ever); how many came, 0 also after a signal."""
        return self._run("ring_buffer__poll", timeout_ms)

    def consume(self) -> int:
        """Take what is there without waiting; how many records came."""
        return self._run("ring_buffer__consume")

    def _run(self, name: str, *arguments: Any) -> int:
        try:
            return _call("reading the ring buffer", name, self._pointer, *arguments)
        except BpfError as error:
            raised, self._raised = self._raised, None
            if raised is not None:
                raise raised from None
            if error.errno == errnos.EINTR:
                return 0
            raise

    def close(self) -> None:
        pointer, self._pointer = self._pointer, 0
        if pointer:
            library().ring_buffer__free(pointer)

    def __enter__(self) -> RingBuffer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
