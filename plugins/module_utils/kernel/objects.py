# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe programs and maps in the kernel: by pin and by id, with the identity that the loader wrote into them.

A program's identity is ``bpf_metadata_digest`` in its .rodata map; ``bpf_metadata_layout`` there is the version of the
layout that its maps have. (The kernel's tag is not an identity: it is blind to .rodata and to the attach type.)
"""

from __future__ import annotations

import errno
import functools
import os
from typing import Any, Callable, Dict, Iterable, List, Optional, Union

from ..errors import SockredirError
from . import btf, libbpf
from .model import LinkInfo, MapInfo, Pin, Program

METADATA = "bpf_metadata_"
DIGEST = METADATA + "digest"
LAYOUT = METADATA + "layout"
RODATA = ".rodata"


def at(path: str) -> Optional[Pin]:
    """What is at a path on a bpffs; None if there is nothing.

    :raises BpfError: it cannot be opened (not root, not a bpffs).
    """
    if os.path.islink(path):
        return Pin(path, "symlink", None)
    if os.path.isdir(path):
        return Pin(path, "directory", None)
    try:
        descriptor = libbpf.get(path)
    except libbpf.BpfError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    with descriptor:
        kind = libbpf.kind(descriptor)
        return Pin(path, kind, _READ[kind](descriptor) if kind in _READ else None)


def program(descriptor: libbpf.Descriptor) -> Program:
    """A program with its identity."""
    info = libbpf.program_info(descriptor)
    found = metadata(info.map_ids)
    digest, layout = found.get(DIGEST), found.get(LAYOUT)
    return Program(
        info.id,
        info.name,
        info.type,
        info.tag,
        info.load_time_ns,
        info.map_ids,
        digest if isinstance(digest, str) and digest else None,
        layout if isinstance(layout, int) else None,
    )


_READ: Dict[str, Callable[[libbpf.Descriptor], Union[Program, MapInfo, LinkInfo]]] = {
    "program": program,
    "map": libbpf.map_info,
    "link": libbpf.link_info,
}


def program_by_id(number: int) -> Optional[Program]:
    """A program by its id; None if it is gone."""
    try:
        with libbpf.program_by_id(number) as descriptor:
            return program(descriptor)
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def alive(program_ids: Iterable[int]) -> List[int]:
    """Those of these programs that the kernel still holds, for live connections or other users."""
    running = set(libbpf.program_ids())
    return [number for number in program_ids if number in running]


def metadata(map_ids: Iterable[int]) -> Dict[str, Any]:
    """The ``bpf_metadata_`` variables of a program with these maps, by name: text or whole numbers."""
    for number in map_ids:
        try:
            with libbpf.Map.open_id(number) as found:
                if found.info.name.endswith(RODATA) and found.info.btf_id:
                    return variables(_btf(found.info.btf_id), found.lookup(bytes(4)) or b"")
        except libbpf.BpfError as error:
            if error.errno != errno.ENOENT:
                raise
    return {}


def variables(types: btf.Btf, rodata: bytes) -> Dict[str, Any]:
    """The ``bpf_metadata_`` variables in the bytes of .rodata."""
    found = {}
    for name, variable in types.variables(RODATA).items():
        if name.startswith(METADATA):
            raw = rodata[variable.offset : variable.offset + variable.size]
            is_text = types.types[types.resolve(variable.type_id)].kind == btf.ARRAY
            found[name] = raw.split(b"\0")[0].decode("utf-8", "replace") if is_text else int.from_bytes(raw, "little")
    return found


def layout(info: MapInfo) -> Dict[str, List[btf.Field]]:
    """The fields of a map's ``key`` and ``value`` if the kernel keeps their types; else empty."""
    if not info.btf_id:
        return {}
    ids = {"key": info.btf_key_type_id, "value": info.btf_value_type_id}
    return {side: _fields(info.btf_id, number) for side, number in ids.items() if number}


@functools.lru_cache(maxsize=None)
def _fields(btf_id: int, type_id: int) -> List[btf.Field]:
    return _btf(btf_id).fields(type_id)


@functools.lru_cache(maxsize=None)
def _btf(number: int) -> btf.Btf:
    with libbpf.btf_by_id(number) as descriptor:
        return btf.Btf(libbpf.btf_data(descriptor))


def need_root() -> None:
    """:raises SockredirError: this process may not ask the kernel."""
    if os.geteuid() != 0:
        raise SockredirError("not root: the kernel shows and changes BPF objects only for root", "use become: true")
