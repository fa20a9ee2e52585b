# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs attached to cgroups and maps: what is there, and one function for each change.

A cgroup holds any number of sock_ops programs, each by a link or without one (legacy). A sockmap or sockhash holds one
sk_msg program. Whose they are is decided in :mod:`..plan.attachment`; here is only what the kernel says and does.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import SockredirError
from . import libbpf

CGROUP, MAP = "cgroup", "map"
LINK, LEGACY = "link", "legacy"
PROGRAM_TYPE = {CGROUP: libbpf.PROG_TYPE_SOCK_OPS, MAP: libbpf.PROG_TYPE_SK_MSG}
ATTACH_TYPE = {CGROUP: libbpf.ATTACH_CGROUP_SOCK_OPS, MAP: libbpf.ATTACH_SK_MSG_VERDICT}
MAP_TYPES = (libbpf.MAP_TYPE_SOCKMAP, libbpf.MAP_TYPE_SOCKHASH)
_LINK_TYPE = {CGROUP: libbpf.LINK_TYPE_CGROUP, MAP: libbpf.LINK_TYPE_SOCKMAP}
#: What the kernel keeps of a program's name (BPF_OBJ_NAME_LEN, less the final zero).
NAME_CHARACTERS = 15
_BESIDE_OTHERS = libbpf.F_ALLOW_MULTI


class Attached(NamedTuple):
    """One program on a target; ``link_id`` is None where it is attached without a link."""

    program_id: int
    method: str
    link_id: Optional[int] = None


class PinnedLink(NamedTuple):
    """What a link pin holds. ``target_id`` is a cgroup's or map's id, 0 where the target is gone."""

    link_id: int
    program_id: int
    target_id: int


def links() -> List[libbpf.LinkInfo]:
    """Every link of this host; ones that come or go meanwhile may be missed."""
    found = []
    for number in libbpf.link_ids():
        with contextlib.suppress(libbpf.BpfError), libbpf.link_by_id(number) as link:
            found.append(libbpf.link_info(link))
    return found


@contextlib.contextmanager
def opened(kind: str, path: str) -> Iterator[libbpf.Descriptor]:
    """A descriptor of a cgroup's directory or of a pinned map."""
    if kind == MAP:
        with libbpf.get(path) as descriptor:
            yield descriptor
        return
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


def attached(
    kind: str, target: libbpf.Descriptor, target_id: int, all_links: Iterable[libbpf.LinkInfo]
) -> Tuple[List[Attached], int]:
    """The programs on a target, and the flags that the first of them set (0 for maps).

    Before Linux 5.18 a map does not say what is attached to it without a link: then it is left out.
    """
    linked = [Attached(info.program_id, LINK, info.id) for info in all_links if _is_on(info, kind, target_id)]
    try:
        query = libbpf.query(target, ATTACH_TYPE[kind])
    except libbpf.BpfError as error:
        if kind == MAP and error.errno in (errno.EINVAL, errno.ENOTSUP):
            return linked, 0
        raise
    others = list(query.program_ids)
    for each in linked:
        if each.program_id in others:
            others.remove(each.program_id)
    return linked + [Attached(number, LEGACY) for number in others], query.attach_flags


def _is_on(info: libbpf.LinkInfo, kind: str, target_id: int) -> bool:
    target = info.cgroup_id if kind == CGROUP else info.map_id
    return info.type == _LINK_TYPE[kind] and target == target_id and info.attach_type == ATTACH_TYPE[kind]


def pinned_link(kind: str, path: str) -> Optional[PinnedLink]:
    """The link of this kind pinned at a path; None where nothing is.

    :raises SockredirError: something else is pinned there.
    """
    try:
        descriptor = libbpf.get(path)
    except libbpf.BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    with descriptor:
        what = libbpf.kind(descriptor)
        info = libbpf.link_info(descriptor) if what == "link" else None
    if info is None or info.type != _LINK_TYPE[kind]:
        raise SockredirError(
            f"{path} is where the link's pin belongs, but holds another {what}", f"look at it, and remove it: rm {path}"
        )
    return PinnedLink(info.id, info.program_id, info.cgroup_id if kind == CGROUP else info.map_id)


def exclusive(cgroup: str, root: str) -> Optional[str]:
    """The cgroup whose programs forbid adding one to ``cgroup``: itself or an ancestor; None where nothing does.

    The rules of cgroup_bpf_attach(): at the cgroup itself programs must be there with ALLOW_MULTI; of its ancestors the
    nearest that has a program decides, and forbids only where it was attached with no flag at all.
    """
    own, flags = _programs(cgroup)
    if own:
        return None if flags & libbpf.F_ALLOW_MULTI else cgroup
    above = cgroup
    while above != root and len(above) > 1:
        above = os.path.dirname(above)
        there, flags = _programs(above)
        if there:
            return None if flags & (libbpf.F_ALLOW_MULTI | libbpf.F_ALLOW_OVERRIDE) else above
    return None


def _programs(cgroup: str) -> Tuple[List[int], int]:
    with opened(CGROUP, cgroup) as target:
        query = libbpf.query(target, ATTACH_TYPE[CGROUP])
    return query.program_ids, query.attach_flags


def has_links(kind: str) -> bool:
    """Whether this kernel attaches to such targets by links (cgroups Linux 5.7, sockmaps 6.10); found by trying."""
    if kind == CGROUP:
        # Without the command the kernel says EINVAL; with it, it first looks for the program.
        return _refusal(-1, -1, kind) == errno.EBADF
    with contextlib.ExitStack() as held:
        target = held.enter_context(libbpf.create_map(libbpf.MAP_TYPE_SOCKHASH, "probe", 4, 8, 1))
        program = held.enter_context(libbpf.load_program(PROGRAM_TYPE[kind], "probe", _RETURN_1, ATTACH_TYPE[kind]))
        return _refusal(program, target, kind) == 0


_RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")


def _refusal(program: libbpf.Descriptor, target: libbpf.Descriptor, kind: str) -> int:
    try:
        libbpf.create_link(program, target, ATTACH_TYPE[kind]).close()
    except libbpf.BpfError as error:
        return error.errno
    return 0


# Changes. Each names programs by id, because that is what plans are made of.


def attach_legacy(kind: str, path: str, program_id: int, replaced_id: Optional[int] = None) -> None:
    """Attach without a link, in place of another program when one is given; a map's program is always replaced."""
    with opened(kind, path) as target, libbpf.program_by_id(program_id) as program:
        if kind == MAP:
            libbpf.attach(program, target, ATTACH_TYPE[kind])
        elif replaced_id is None:
            libbpf.attach(program, target, ATTACH_TYPE[kind], _BESIDE_OTHERS)
        else:
            with libbpf.program_by_id(replaced_id) as replaced:
                flags = _BESIDE_OTHERS | libbpf.F_REPLACE
                libbpf.attach(program, target, ATTACH_TYPE[kind], flags, replaced)


def detach_legacy(kind: str, path: str, program_id: int) -> None:
    """Take off a program that was attached without a link."""
    with opened(kind, path) as target, libbpf.program_by_id(program_id) as program:
        libbpf.detach(program, target, ATTACH_TYPE[kind])


def attach_link(kind: str, path: str, program_id: int, link_pin: str) -> None:
    """Attach by a new link and pin that; a pin that is there already must hold a dead link and is replaced."""
    with opened(kind, path) as target, libbpf.program_by_id(program_id) as program:
        link = libbpf.create_link(program, target, ATTACH_TYPE[kind])
    with link:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link_pin)
        libbpf.pin(link, link_pin)


def update_link(link_pin: str, program_id: int, replaced_id: int) -> None:
    """Replace the program of a pinned link in one step."""
    program, replaced = libbpf.program_by_id(program_id), libbpf.program_by_id(replaced_id)
    with program, replaced, libbpf.get(link_pin) as link:
        libbpf.update_link(link, program, replaced)


def detach_link(link_id: int) -> None:
    """Detach a link at once, whoever holds it."""
    with libbpf.link_by_id(link_id) as link:
        libbpf.detach_link(link)
