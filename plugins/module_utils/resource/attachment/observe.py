# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe an attachment, and what the manifest wants. Reads only."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import FrozenSet, Iterator, List, Optional, Tuple

from ...errors import SockredirError
from ...host import cgroups, mounts, netns, systemd
from ...kernel import attachments, hooks, libbpf, objects
from ...kernel.hooks import CGROUP, KINDS, MAP, NETNS, Hook
from ...kernel.model import LEGACY, Attached
from ...state import manifest
from ..snapshot import Snapshot
from . import needs
from . import plan as planning
from .plan import Observed, Record, Wanted


def wanted_of(entry: Record) -> Wanted:
    """A manifest's attachment as the plan takes it.

    :raises SockredirError: it is of a later version.
    """
    kind, target = hooks.target(entry)
    return Wanted(
        program=entry["program"],
        kind=kind,
        target=target,
        present=not entry.get(manifest.LEAVING),
        create_cgroup=kind == CGROUP,
        hook=hooks.recorded(entry),
        needs=entry.get("needs"),
    )


def ordered(document: manifest.Manifest) -> List[Record]:
    """The manifest's attachments, those to maps first: no socket may enter a map before it has its programs."""
    return sorted(
        document["attachments"], key=lambda entry: (entry["map"] is None, entry["cgroup"] or "", entry["program"])
    )


def cgroup(path: str) -> str:
    """The target of an attachment to this cgroup; see :func:`...host.cgroups.resolve`."""
    return cgroups.resolve(path, mounts.read())


def observe(wanted: Wanted, host: Snapshot) -> Observed:
    """What is there of an attachment; reads only, and does without libbpf if nothing is pinned or recorded.

    :raises SockredirError: a pin is something else than it has to be, or the kernel does not let us look.
    """
    document = host.document
    entry = _entry(document, wanted)
    program_id, hook = _program(wanted, hooks.recorded(entry) if entry else wanted.hook, host)
    made = _made(document, wanted)
    known = Observed(program_id=program_id, record=entry, met=_met(wanted, entry, host))
    target_id = _target_id(wanted, host)
    if wanted.kind == CGROUP and wanted.present and wanted.create_cgroup:
        known = known._replace(missing=tuple(cgroups.missing(wanted.target)))
    if not wanted.present:
        known = known._replace(removable=tuple(cgroups.removable(made)))
    pinned = attachments.pinned_link(wanted.kind, wanted.link_pin) if os.path.lexists(wanted.link_pin) else None
    hook = hook or (pinned.hook if pinned else None)
    known = known._replace(target_id=target_id, pinned=pinned, ours=_ours(document, entry, program_id), hook=hook)
    nothing = program_id is None and pinned is None and not known.ours
    known = known if nothing and not host.has_libbpf else _ask_kernel(wanted, known, host)
    if wanted.start_slice and not known.attached:
        known = known._replace(inactive_slice=_inactive_slice(wanted, host))
    return known


def _inactive_slice(wanted: Wanted, host: Snapshot) -> Optional[str]:
    """The slice of the cgroup, if systemd has not started it.

    Then the cgroup is nobody's: systemd (262) removes it when it reads its unit files again and finds a service that
    will move to the slice at its next start. What is attached goes with it.
    """
    if wanted.kind != CGROUP or not wanted.present or not systemd.booted():
        return None
    name = systemd.slice_of(cgroups.relative(wanted.target, host.mounts))
    return name if name and not systemd.active(name) else None


def _target_id(wanted: Wanted, host: Snapshot) -> Optional[int]:
    if wanted.kind == CGROUP:
        return cgroups.cgroup_id(wanted.target)
    return netns.inode(wanted.target) if wanted.kind == NETNS else _map_id(wanted.target, host)


def _met(wanted: Wanted, entry: Optional[Record], host: Snapshot) -> Optional[bool]:
    if not wanted.present or wanted.needs is None:
        return None
    known = bool(entry and entry["needs"] == wanted.needs and entry["met"])
    # Without libbpf nothing can be attached either: this is a plan alone, which says what is meant.
    return True if known or not host.has_libbpf else needs.met(wanted.needs)


def _ask_kernel(wanted: Wanted, known: Observed, host: Snapshot) -> Observed:
    if wanted.present and (known.record is None or wanted.method != "auto"):
        known = known._replace(links=attachments.has_links(known.hook or hooks.of_kind(wanted.kind)[0]))
    if known.target_id is None or known.hook is None:
        return known
    with attachments.opened(wanted.kind, wanted.target) as target:
        found, _flags = attachments.attached(known.hook, target, known.target_id, host.links)
    if wanted.kind == MAP and not found:
        found = _remembered(known)
    blocking = _exclusive(known.hook, wanted, host) if wanted.kind == CGROUP and wanted.present else None
    lost = frozenset(each.program_id for each in found if _is_lost(wanted, known, each))
    return known._replace(attached=tuple(found), exclusive=blocking, ours=known.ours | lost)


def _is_lost(wanted: Wanted, known: Observed, each: Attached) -> bool:
    """Whether an unknown attachment is an earlier version of our program, the manifest that knew it being gone.

    It is when our loader wrote its digest, it has the wanted program's name, and it uses a map pinned beside it, or is
    attached to one.
    """
    if each.method != LEGACY or each.program_id in known.ours:
        return False
    found = objects.program_by_id(each.program_id)
    directory, name = os.path.split(wanted.program)
    if (
        not os.path.isdir(directory)
        or found is None
        or found.digest is None
        or found.name != name[: attachments.NAME_CHARACTERS]
    ):
        return False
    if os.path.dirname(wanted.target) == directory:
        return True
    pins = (objects.at(os.path.join(directory, entry)) for entry in sorted(os.listdir(directory)))
    return any(pin.kind == "map" and pin.id in found.map_ids for pin in pins if pin)


def _remembered(known: Observed) -> List[Attached]:
    """On kernels before 5.18, which do not say what a map holds: what we attached to this very map."""
    entry = known.record
    if (
        entry
        and entry["program_id"]
        and entry["method"] == LEGACY
        and entry["map_id"] == known.target_id
        and (entry["met"] or not entry["needs"])
        and not _maps_answer()
    ):
        return [Attached(entry["program_id"], LEGACY)]
    return []


def _maps_answer() -> bool:
    with libbpf.create_map(libbpf.MAP_TYPE_SOCKHASH, "probe", 4, 8, 1) as probe:
        try:
            libbpf.query(probe, hooks.SK_MSG.attach_type)
        except libbpf.BpfError as error:
            if error.errno in (errno.EINVAL, errno.ENOTSUP):
                return False
            raise
    return True


def _exclusive(hook: Hook, wanted: Wanted, host: Snapshot) -> Optional[str]:
    mount = mounts.holding(wanted.target, host.mounts)
    return attachments.exclusive(hook, wanted.target, mount.point if mount else "/")


def _program(wanted: Wanted, recorded: Optional[Hook], host: Snapshot) -> Tuple[Optional[int], Optional[Hook]]:
    """The id of what is pinned as the program, and where that belongs; as recorded if nothing is pinned."""
    with _pin(wanted.program, host) as descriptor:
        if descriptor is None:
            return None, recorded
        what = libbpf.kind(descriptor)
        if what != "program":
            raise SockredirError(f"program: {wanted.program} is a pin of a {what}", "name the pin of a program")
        info, hook = libbpf.program_info(descriptor), attachments.hook_of(descriptor)
    if hook and hook.kind == wanted.kind and recorded in (None, hook):
        return info.id, hook
    if wanted.present:
        raise _misplaced(wanted, info.type, recorded)
    return None, recorded


def _misplaced(wanted: Wanted, program_type: int, recorded: Optional[Hook]) -> SockredirError:
    is_a = f"program: {wanted.program} is of type {libbpf.prog_type_name(program_type)}, but"
    if recorded:
        return SockredirError(
            f"{is_a} what the manifest has at {wanted.target} is a {recorded.name}", "detach that first: state=absent"
        )
    belongs = {kind: _types(kind) for kind in KINDS}
    return SockredirError(
        f"{is_a} a {wanted.kind} takes {belongs[wanted.kind]}",
        "; ".join(f"to a {kind}, attach programs of type {types}" for kind, types in belongs.items()),
    )


def _types(kind: str) -> str:
    return " or ".join(dict.fromkeys(libbpf.prog_type_name(hook.program_type) for hook in hooks.of_kind(kind)))


def _map_id(path: str, host: Snapshot) -> Optional[int]:
    with _pin(path, host) as descriptor:
        if descriptor is None:
            return None
        what = libbpf.kind(descriptor)
        if what != "map":
            raise SockredirError(f"map: {path} is a pin of a {what}", "name the pin of a sockhash or sockmap")
        info = libbpf.map_info(descriptor)
    if info.type not in attachments.MAP_TYPES:
        raise SockredirError(
            f"map: {path} is of type {libbpf.map_type_name(info.type)}, which cannot hold sockets",
            "name the pin of a sockhash or sockmap",
        )
    return info.id


@contextlib.contextmanager
def _pin(path: str, host: Snapshot) -> Iterator[Optional[libbpf.Fd]]:
    """What is pinned at a path, or None if nothing is."""
    if not os.path.lexists(path):
        yield None
        return
    mount = mounts.bpffs_holding(path, host.mounts)
    if mount is None:
        raise SockredirError(
            f"{path} is not a pin: it is not on a bpffs", "name a path below a bpffs, such as /sys/fs/bpf"
        )
    if os.path.isdir(path):
        raise SockredirError(f"{path} is a directory, not a pin", "name the pin in it")
    with libbpf.get(path) as descriptor:
        yield descriptor


def _entry(document: Optional[manifest.Manifest], wanted: Wanted) -> Optional[Record]:
    for entry in document["attachments"] if document else []:
        if entry.get("program") == wanted.program and entry.get(wanted.kind) == wanted.target:
            lost = {} if document and manifest.ids_valid(document) else dict.fromkeys(planning.RECORD_IDS)
            known = {**entry, "attach_type": hooks.recorded(entry).name, **lost}
            return {key: known.get(key) for key in planning.RECORD_KEYS}
    return None


def _ours(document: Optional[manifest.Manifest], entry: Optional[Record], program_id: Optional[int]) -> FrozenSet[int]:
    numbers = {program_id, entry["program_id"] if entry else None}
    if document and manifest.ids_valid(document):
        numbers |= {each.get("program_id") for each in document["draining"]}
    return frozenset(number for number in numbers if number)


def _made(document: Optional[manifest.Manifest], wanted: Wanted) -> List[str]:
    """The cgroups that we made for this one and that no other attachment needs."""
    if wanted.kind != CGROUP or not document:
        return []
    leaving = wanted.gone | {(wanted.program, wanted.target)}
    others = [
        entry["cgroup"]
        for entry in document["attachments"]
        if entry.get("cgroup") and (entry.get("program"), entry["cgroup"]) not in leaving
    ]
    return [
        path
        for path in document.get("cgroups", [])
        if _within(wanted.target, path) and not any(_within(other, path) for other in others)
    ]


def _within(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(ancestor + "/")
