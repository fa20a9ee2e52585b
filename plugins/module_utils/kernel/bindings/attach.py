# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs attached to cgroups and maps, and links."""

from __future__ import annotations

import ctypes
import errno as errnos
from typing import List, NamedTuple, Optional

from .binding import MAX_IDS, U32, BpfError, Descriptor, Fd, call, fields, number_of
from .constants import F_REPLACE


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
        ids, count, attach_flags = (U32 * room)(), U32(room), U32(0)
        try:
            call(
                "asking what is attached",
                "bpf_prog_query",
                number_of(target),
                attach_type,
                flags,
                ctypes.byref(attach_flags),
                ids,
                ctypes.byref(count),
            )
        except BpfError as error:
            if error.errno != errnos.ENOSPC or room >= MAX_IDS:
                raise
            room = max(room * 2, count.value)
            continue
        return Query(list(ids[: count.value]), attach_flags.value)


class _AttachOpts(ctypes.Structure):
    _fields_ = fields("size sz", "u32 flags", "int replace_prog_fd")


def attach(
    program: Descriptor, target: Descriptor, attach_type: int, flags: int = 0, replace: Optional[Descriptor] = None
) -> None:
    """Attach to a cgroup or a map without a link.

    :param flags: for a cgroup ``F_ALLOW_MULTI``, and ``F_REPLACE`` with ``replace`` (Linux 5.6); for a map 0, which
        takes the place of what is attached.
    :param replace: the attached program that this one takes the place of.
    """
    opts = _AttachOpts(ctypes.sizeof(_AttachOpts), flags, 0 if replace is None else number_of(replace))
    call("attaching", "bpf_prog_attach_opts", number_of(program), number_of(target), attach_type, ctypes.byref(opts))


def detach(program: Descriptor, target: Descriptor, attach_type: int) -> None:
    """Take this program, and no other, off a cgroup or map."""
    call("detaching", "bpf_prog_detach2", number_of(program), number_of(target), attach_type)


def create_link(program: Descriptor, target: Descriptor, attach_type: int) -> Fd:
    """Attach by a link (cgroups Linux 5.7, sockmaps 6.10): attached while a descriptor or pin of the link lives."""
    return Fd(call("linking", "bpf_link_create", number_of(program), number_of(target), attach_type, None))


class _LinkUpdateOpts(ctypes.Structure):
    _fields_ = fields("size sz", "u32 flags old_prog_fd")


def update_link(link: Descriptor, program: Descriptor, old_program: Optional[Descriptor] = None) -> None:
    """Replace the link's program in one step.

    :param old_program: refuse (EPERM) if the link has another program than this.
    :raises BpfError: ENOLINK if the cgroup is gone.
    """
    opts = _LinkUpdateOpts(ctypes.sizeof(_LinkUpdateOpts), 0, 0)
    if old_program is not None:
        opts.flags, opts.old_prog_fd = F_REPLACE, number_of(old_program)
    call("updating the link", "bpf_link_update", number_of(link), number_of(program), ctypes.byref(opts))


def detach_link(link: Descriptor) -> None:
    """Detach at once, whoever else holds the link (Linux 5.9)."""
    call("detaching the link", "bpf_link_detach", number_of(link))


def open_tracepoint(program: Descriptor) -> Fd:
    """Attach to the tracepoint that the program names by its section (``tp_btf/...``), while the descriptor lives."""
    return Fd(call("attaching to a tracepoint", "bpf_raw_tracepoint_open", None, number_of(program)))
