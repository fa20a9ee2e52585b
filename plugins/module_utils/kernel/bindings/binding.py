# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The library: loaded at the first call, and called with errors that say why. Internal to this package."""

from __future__ import annotations

import ctypes
import errno as errnos
import os
from typing import Any, Dict, List, Optional, Tuple, Union

from ... import distribution
from ...errors import SockredirError

NAME_BYTES = 16
#: Of the verifier's log for a few instructions. A larger buffer costs milliseconds to clear, on every host of an audit.
LOG_BYTES = 1 << 20
MAX_IDS = 1 << 20

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


def number_of(descriptor: Descriptor) -> int:
    return descriptor if isinstance(descriptor, int) else descriptor.fileno()


INT, U32, U64 = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64
SIZE, STR, PTR = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
_PRINT = ctypes.CFUNCTYPE(INT, INT, STR, PTR)
SAMPLE = ctypes.CFUNCTYPE(INT, PTR, PTR, SIZE)

_PROTOTYPES: Dict[str, Tuple[Any, List[Any]]] = {
    "libbpf_set_print": (PTR, [_PRINT]),
    "libbpf_major_version": (U32, []),
    "libbpf_minor_version": (U32, []),
    "libbpf_strerror": (INT, [INT, PTR, SIZE]),
    "libbpf_num_possible_cpus": (INT, []),
    "libbpf_bpf_map_type_str": (STR, [INT]),
    "libbpf_bpf_prog_type_str": (STR, [INT]),
    "libbpf_bpf_attach_type_str": (STR, [INT]),
    "libbpf_bpf_link_type_str": (STR, [INT]),
    "libbpf_probe_bpf_prog_type": (INT, [INT, PTR]),
    "libbpf_probe_bpf_map_type": (INT, [INT, PTR]),
    "libbpf_probe_bpf_helper": (INT, [INT, INT, PTR]),
    "bpf_obj_get": (INT, [STR]),
    "bpf_obj_pin": (INT, [INT, STR]),
    "bpf_obj_get_info_by_fd": (INT, [INT, PTR, PTR]),
    "bpf_prog_get_fd_by_id": (INT, [U32]),
    "bpf_map_get_fd_by_id": (INT, [U32]),
    "bpf_link_get_fd_by_id": (INT, [U32]),
    "bpf_btf_get_fd_by_id": (INT, [U32]),
    "bpf_prog_get_next_id": (INT, [U32, PTR]),
    "bpf_map_get_next_id": (INT, [U32, PTR]),
    "bpf_link_get_next_id": (INT, [U32, PTR]),
    "bpf_prog_query": (INT, [INT, INT, U32, PTR, PTR, PTR]),
    "bpf_prog_attach_opts": (INT, [INT, INT, INT, PTR]),
    "bpf_prog_detach2": (INT, [INT, INT, INT]),
    "bpf_link_create": (INT, [INT, INT, INT, PTR]),
    "bpf_link_update": (INT, [INT, INT, PTR]),
    "bpf_link_detach": (INT, [INT]),
    "bpf_raw_tracepoint_open": (INT, [STR, INT]),
    "bpf_map_create": (INT, [INT, STR, U32, U32, U32, PTR]),
    "bpf_map_lookup_elem": (INT, [INT, STR, PTR]),
    "bpf_map_update_elem": (INT, [INT, STR, STR, U64]),
    "bpf_map_delete_elem": (INT, [INT, STR]),
    "bpf_map_get_next_key": (INT, [INT, STR, PTR]),
    "bpf_map_lookup_batch": (INT, [INT, PTR, PTR, PTR, PTR, PTR, PTR]),
    "bpf_prog_load": (INT, [INT, STR, STR, STR, SIZE, PTR]),
    "bpf_object__open_mem": (PTR, [STR, SIZE, PTR]),
    "bpf_object__load": (INT, [PTR]),
    "bpf_object__close": (None, [PTR]),
    "bpf_object__btf": (PTR, [PTR]),
    "bpf_object__next_program": (PTR, [PTR, PTR]),
    "bpf_object__next_map": (PTR, [PTR, PTR]),
    "btf__raw_data": (PTR, [PTR, PTR]),
    "bpf_program__name": (STR, [PTR]),
    "bpf_program__section_name": (STR, [PTR]),
    "bpf_program__type": (INT, [PTR]),
    "bpf_program__set_type": (INT, [PTR, INT]),
    "bpf_program__expected_attach_type": (INT, [PTR]),
    "bpf_program__set_expected_attach_type": (INT, [PTR, INT]),
    "bpf_program__set_autoload": (INT, [PTR, ctypes.c_bool]),
    "bpf_program__fd": (INT, [PTR]),
    "bpf_map__name": (STR, [PTR]),
    "bpf_map__type": (INT, [PTR]),
    "bpf_map__key_size": (U32, [PTR]),
    "bpf_map__value_size": (U32, [PTR]),
    "bpf_map__max_entries": (U32, [PTR]),
    "bpf_map__map_flags": (U32, [PTR]),
    "bpf_map__btf_key_type_id": (U32, [PTR]),
    "bpf_map__btf_value_type_id": (U32, [PTR]),
    "bpf_map__set_max_entries": (INT, [PTR, U32]),
    "bpf_map__is_internal": (ctypes.c_bool, [PTR]),
    "bpf_map__initial_value": (PTR, [PTR, PTR]),
    "bpf_map__set_initial_value": (INT, [PTR, STR, SIZE]),
    "bpf_map__reuse_fd": (INT, [PTR, INT]),
    "bpf_map__fd": (INT, [PTR]),
    "ring_buffer__new": (PTR, [INT, SAMPLE, PTR, PTR]),
    "ring_buffer__poll": (INT, [PTR, INT]),
    "ring_buffer__consume": (INT, [PTR]),
    "ring_buffer__free": (None, [PTR]),
}

log_lines: List[str] = []
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
    if libc.vasprintf(ctypes.byref(line), text, PTR(arguments)) >= 0:
        log_lines.append((line.value or b"").decode("utf-8", "replace"))
        libc.free(line)
    return 0


def version() -> Tuple[int, int]:
    """Major and minor version of libbpf."""
    return library().libbpf_major_version(), library().libbpf_minor_version()


def call(what: str, name: str, *arguments: Any) -> int:
    """Call a function that returns a negative errno on failure."""
    function = getattr(library(), name)
    log_lines.clear()
    result = function(*arguments)
    if result < 0:
        raise _error(what, -result)
    return result


def open_pointer(what: str, name: str, *arguments: Any) -> int:
    """Call a function that returns a pointer, and NULL with errno on failure."""
    function = getattr(library(), name)
    log_lines.clear()
    ctypes.set_errno(0)
    pointer = function(*arguments)
    if not pointer:
        raise _error(what, ctypes.get_errno())
    return pointer


def _error(what: str, errno: int) -> BpfError:
    detail = "".join(log_lines).strip()
    reason = ctypes.create_string_buffer(256)
    library().libbpf_strerror(errno, reason, len(reason))  # knows libbpf's own numbers (from 4000) too
    message = f"{what}: {text_of(reason.value)} ({errnos.errorcode.get(errno, errno)})"
    return BpfError(message, errno, _cure(errno), detail)


def _cure(errno: int) -> str:
    if errno not in (errnos.EPERM, errnos.EACCES):
        return ""
    if os.geteuid() != 0:
        return "run it as root (become: true)"
    return ""


_TYPES = {
    "u32": U32,
    "u64": U64,
    "int": INT,
    "size": SIZE,
    "str": STR,
    "ptr": PTR,
    "tag": ctypes.c_ubyte * 8,
    "name": ctypes.c_char * NAME_BYTES,
}


def fields(*groups: str) -> List[Tuple[str, Any]]:
    """A C struct's fields from ``"type name name ..."`` groups."""
    return [(name, _TYPES[group.split()[0]]) for group in groups for name in group.split()[1:]]


def path_bytes(path: str) -> bytes:
    return os.fsencode(path)


def text_of(value: Optional[bytes]) -> str:
    return (value or b"").decode("utf-8", "replace")
