# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs attached to cgroups, maps and network namespaces: what is there, and one function for each change.

At each of its hooks (:mod:`.hooks`) a cgroup holds any number of programs, each by a link or without one (legacy), and
a sockmap or sockhash holds one. A network namespace holds any number, by links alone. Whose they are is decided in
:mod:`..resource.attachment.plan`; here is only what the kernel says and does.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Iterable, Iterator, List, Optional, Tuple

from ..errors import SockredirError
from . import hooks, libbpf
from .hooks import CGROUP, MAP, NETNS, Hook
from .model import LEGACY, LINK, Attached, LinkInfo, PinnedLink

MAP_TYPES = (libbpf.MAP_TYPE_SOCKMAP, libbpf.MAP_TYPE_SOCKHASH)
_LINK_TYPE = {CGROUP: libbpf.LINK_TYPE_CGROUP, MAP: libbpf.LINK_TYPE_SOCKMAP, NETNS: libbpf.LINK_TYPE_NETNS}
#: What the kernel keeps of a program's name (BPF_OBJ_NAME_LEN, less the final zero).
NAME_CHARACTERS = 15
_BESIDE_OTHERS = libbpf.F_ALLOW_MULTI


def links() -> List[LinkInfo]:
    """Every link of this host; ones that come or go meanwhile may be missed."""
    found = []
    for number in libbpf.link_ids():
        with contextlib.suppress(libbpf.BpfError), libbpf.link_by_id(number) as link:
            found.append(libbpf.link_info(link))
    return found


def hook_of(program: libbpf.Descriptor) -> Optional[Hook]:
    """Where a loaded program belongs; None if that is not one of the collection's hooks."""
    fitting = hooks.of_program(libbpf.program_info(program).type)
    if len(fitting) > 1:
        # The kernel does not report which of them a program was loaded for, but checks that before it looks for the
        # target.
        fitting = [hook for hook in fitting if _refusal(program, -1, hook) == errno.EBADF]
    return fitting[0] if fitting else None


@contextlib.contextmanager
def opened(kind: str, path: str) -> Iterator[libbpf.Descriptor]:
    """A descriptor of a cgroup's directory, of a pinned map or of a network namespace."""
    if kind == MAP:
        with libbpf.get(path) as descriptor:
            yield descriptor
        return
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if kind == CGROUP else 0))
    try:
        yield number
    finally:
        os.close(number)


def attached(
    hook: Hook, target: libbpf.Descriptor, target_id: int, all_links: Iterable[LinkInfo]
) -> Tuple[List[Attached], int]:
    """The programs at a hook of a target, and the flags that the first of them set (0 for maps).

    Before Linux 5.18 a map does not say what is attached to it without a link: then it is left out.
    """
    linked = [Attached(info.program_id, LINK, info.id) for info in all_links if _is_on(info, hook, target_id)]
    try:
        query = libbpf.query(target, hook.attach_type)
    except libbpf.BpfError as error:
        if hook.kind == MAP and error.errno in (errno.EINVAL, errno.ENOTSUP):
            return linked, 0
        raise
    others = list(query.program_ids)
    for each in linked:
        if each.program_id in others:
            others.remove(each.program_id)
    return linked + [Attached(number, LEGACY) for number in others], query.attach_flags


def _is_on(info: LinkInfo, hook: Hook, target_id: int) -> bool:
    there = info.type == _LINK_TYPE[hook.kind] and info.attach_type == hook.attach_type
    return there and info.target_id(hook.kind) == target_id


def pinned_link(kind: str, path: str) -> Optional[PinnedLink]:
    """The link of this kind pinned at a path; None if nothing is.

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
    fitting = [hook for hook in hooks.of_kind(kind) if info and hook.attach_type == info.attach_type]
    if info is None or info.type != _LINK_TYPE[kind] or not fitting:
        raise SockredirError(
            f"{path} must be the pin of the link, but is another {what}", f"check it, then remove it: rm {path}"
        )
    return PinnedLink(info.id, info.program_id, info.target_id(kind), fitting[0])


def exclusive(hook: Hook, cgroup: str, root: str) -> Optional[str]:
    """The cgroup whose programs forbid adding one to ``cgroup``: itself or an ancestor; None if nothing does.

    The rules of cgroup_bpf_attach(): at the cgroup itself programs must be there with ALLOW_MULTI; of its ancestors the
    nearest that has a program decides, and forbids only if it was attached with no flag at all.
    """
    own, flags = _programs(hook, cgroup)
    if own:
        return None if flags & libbpf.F_ALLOW_MULTI else cgroup
    above = cgroup
    while above != root and len(above) > 1:
        above = os.path.dirname(above)
        there, flags = _programs(hook, above)
        if there:
            return None if flags & (libbpf.F_ALLOW_MULTI | libbpf.F_ALLOW_OVERRIDE) else above
    return None


def _programs(hook: Hook, cgroup: str) -> Tuple[List[int], int]:
    with opened(CGROUP, cgroup) as target:
        query = libbpf.query(target, hook.attach_type)
    return query.program_ids, query.attach_flags


def has_links(hook: Hook) -> bool:
    """Whether this kernel attaches at such a hook by links; found by trying.

    Cgroups have them since Linux 5.7, network namespaces since 5.9, sockmaps since 6.10.
    """
    if hook.kind != MAP:
        # Without the command the kernel says EINVAL; with it, it first looks for the program.
        return _refusal(-1, -1, hook) == errno.EBADF
    with contextlib.ExitStack() as held:
        target = held.enter_context(libbpf.create_map(libbpf.MAP_TYPE_SOCKHASH, "probe", 4, 8, 1))
        program = held.enter_context(libbpf.load_program(hook.program_type, "probe", _RETURN_1, hook.attach_type))
        return _refusal(program, target, hook) == 0


_RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")


def _refusal(program: libbpf.Descriptor, target: libbpf.Descriptor, hook: Hook) -> int:
    try:
        libbpf.create_link(program, target, hook.attach_type).close()
    except libbpf.BpfError as error:
        return error.errno
    return 0


# Changes. Each names programs by id, because that is what plans are made of; where they belong follows from them.


@contextlib.contextmanager
def _both(path: str, program_id: int) -> Iterator[Tuple[libbpf.Fd, libbpf.Descriptor, Hook]]:
    """A program, its target, and the hook where they meet.

    :raises SockredirError: the program belongs nowhere on a cgroup or map.
    """
    with libbpf.program_by_id(program_id) as program:
        hook = hook_of(program)
        if hook is None:
            raise SockredirError(
                f"program {program_id} has a type that can be attached to no cgroup, sockmap or network namespace"
            )
        with opened(hook.kind, path) as target:
            yield program, target, hook


def attach_legacy(path: str, program_id: int, replaced_id: Optional[int] = None) -> None:
    """Attach without a link, in place of another program when one is given; a map's program is always replaced."""
    with _both(path, program_id) as (program, target, hook):
        if hook.kind == MAP:
            libbpf.attach(program, target, hook.attach_type)
        elif replaced_id is None:
            libbpf.attach(program, target, hook.attach_type, _BESIDE_OTHERS)
        else:
            with libbpf.program_by_id(replaced_id) as replaced:
                libbpf.attach(program, target, hook.attach_type, _BESIDE_OTHERS | libbpf.F_REPLACE, replaced)


def detach_legacy(path: str, program_id: int) -> None:
    """Take off a program that was attached without a link."""
    with _both(path, program_id) as (program, target, hook):
        libbpf.detach(program, target, hook.attach_type)


def attach_link(path: str, program_id: int, link_pin: str) -> None:
    """Attach by a new link and pin that; a pin that is there already must hold a dead link and is replaced."""
    with _both(path, program_id) as (program, target, hook):
        link = libbpf.create_link(program, target, hook.attach_type)
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
