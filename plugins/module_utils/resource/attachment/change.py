# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a program to a cgroup or a map, or take it off: observe, plan, apply."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Tuple

from ...change.step import Plan, Step
from ...change.transaction import Handler, Undo, Watch, apply
from ...errors import SockredirError
from ...host import cgroups, mounts
from ...kernel import attachments, hooks, libbpf, objects
from ...kernel.attachments import LEGACY, Attached
from ...kernel.hooks import CGROUP, MAP, Hook
from ...state import lock, manifest
from ..snapshot import Snapshot
from . import plan as planning
from .plan import Observed, Record, Wanted


class Result(NamedTuple):
    """:ivar record: what the manifest says of the attachment now; None where it is absent.
    :ivar foreign: programs on the same target that are not ours.
    :ivar notes: what an operator should know, one line each.
    """

    steps: Plan
    record: Optional[Record]
    foreign: List[Attached]
    notes: List[str]


def ensure(
    wanted: Wanted, state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS
) -> Result:
    """Make it so, or with ``wanted.pretend`` say what that takes.

    :param wait_seconds: float, how long to wait for another run on this host.
    :raises SockredirError: it cannot be had; the host is as it was.
    """
    if wanted.pretend:
        return _result(wanted, observe(wanted, Snapshot(state_dir)), None)
    with lock.hold(state_dir, wait_seconds):
        seen = observe(wanted, Snapshot(state_dir))
        steps = planning.plan(wanted, seen)
        apply(steps, handlers(wanted, state_dir), watch)
        after = observe(wanted, Snapshot(state_dir)) if steps else seen
    return _result(wanted, after, steps)


def _result(wanted: Wanted, seen: Observed, steps: Optional[Plan]) -> Result:
    notes = _notes(wanted, seen) if wanted.pretend else []
    steps = planning.plan(wanted, seen) if steps is None else steps
    entry = planning.record(wanted, seen) if wanted.present else None
    return Result(steps, entry, planning.foreign(wanted, seen), notes)


def _notes(wanted: Wanted, seen: Observed) -> List[str]:
    notes = []
    if wanted.present and seen.program_id is None:
        notes.append(f"nothing is pinned at {wanted.program} yet; its type cannot be known")
    if wanted.present and seen.target_id is None and not (wanted.kind == CGROUP and wanted.create_cgroup):
        notes.append(f"{wanted.target} does not exist yet; an earlier task has to make it")
    return notes


# --- as the manifest has it ---


def wish(entry: Record) -> Wanted:
    """A manifest's attachment as the plan takes it.

    :raises SockredirError: it is of a later version.
    """
    on_cgroup = entry["cgroup"] is not None
    return Wanted(
        program=entry["program"],
        kind=CGROUP if on_cgroup else MAP,
        target=entry["cgroup"] if on_cgroup else entry["map"],
        present=not entry.get(manifest.LEAVING),
        create_cgroup=on_cgroup,
        hook=hooks.recorded(entry),
    )


def ordered(document: manifest.Manifest) -> List[Record]:
    """The manifest's attachments, those to maps first: no socket may enter a map before it has its programs."""
    return sorted(
        document["attachments"], key=lambda entry: (entry["map"] is None, entry["cgroup"] or "", entry["program"])
    )


# --- observe ---


def cgroup(path: str) -> str:
    """The target of an attachment to this cgroup; see :func:`...host.cgroups.resolve`."""
    return cgroups.resolve(path, mounts.read())


def observe(wanted: Wanted, host: Snapshot) -> Observed:
    """What is there of an attachment; reads only, and does without libbpf where nothing is pinned or recorded.

    :raises SockredirError: a pin is something else than it has to be, or the kernel does not let us look.
    """
    document = host.document
    entry = _entry(document, wanted)
    program_id, hook = _program(wanted, hooks.recorded(entry) if entry else wanted.hook, host)
    made = _made(document, wanted)
    known = Observed(program_id=program_id, record=entry)
    target_id = cgroups.cgroup_id(wanted.target) if wanted.kind == CGROUP else _map_id(wanted.target, host)
    if wanted.kind == CGROUP and wanted.present and wanted.create_cgroup:
        known = known._replace(missing=tuple(cgroups.missing(wanted.target)))
    if not wanted.present:
        known = known._replace(removable=tuple(cgroups.removable(made)))
    pinned = attachments.pinned_link(wanted.kind, wanted.link_pin) if os.path.lexists(wanted.link_pin) else None
    hook = hook or (pinned.hook if pinned else None)
    known = known._replace(target_id=target_id, pinned=pinned, ours=_ours(document, entry, program_id), hook=hook)
    nothing = program_id is None and pinned is None and not known.ours
    return known if nothing and not host.has_libbpf else _ask_kernel(wanted, known, host)


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
    """Whether an unknown attachment is an earlier version of ours, the manifest that knew it being gone.

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
    """The id of what is pinned as the program, and where that belongs; as recorded where nothing is pinned."""
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
    belongs = {kind: _types(kind) for kind in (CGROUP, MAP)}
    return SockredirError(
        f"{is_a} a {wanted.kind} takes {belongs[wanted.kind]}",
        "; ".join(f"on a {kind} belong programs of type {types}" for kind, types in belongs.items()),
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
            f"map: {path} is of type {libbpf.map_type_name(info.type)}, which holds no sockets",
            "name the pin of a sockhash or sockmap",
        )
    return info.id


@contextlib.contextmanager
def _pin(path: str, host: Snapshot) -> Iterator[Optional[libbpf.Fd]]:
    """What is pinned at a path, or None where nothing is."""
    if not os.path.lexists(path):
        yield None
        return
    mount = mounts.bpffs_holding(path, host.mounts)
    if mount is None:
        raise SockredirError(
            f"{path} is no pin: it is not on a bpffs", "name a path below a bpffs, such as /sys/fs/bpf"
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
    others = [
        entry["cgroup"]
        for entry in document["attachments"]
        if entry.get("cgroup") and (entry["cgroup"], entry.get("program")) != (wanted.target, wanted.program)
    ]
    return [
        path
        for path in document.get("cgroups", [])
        if _within(wanted.target, path) and not any(_within(other, path) for other in others)
    ]


def _within(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(ancestor + "/")


# --- apply ---


def handlers(wanted: Wanted, state_dir: str, keep_book: bool = True) -> Dict[str, Handler]:
    """The handler of each verb that :func:`.plan.plan` uses.

    :param keep_book: whether each change is written into the manifest at once.
    """
    own = _Handlers(wanted, state_dir, keep_book)
    return {
        "create_cgroup": own.create_cgroup,
        "remove_cgroup": own.remove_cgroup,
        "attach_link": own.attach_link,
        "attach_legacy": own.attach_legacy,
        "replace_link": own.replace_link,
        "replace_legacy": own.replace_legacy,
        "detach_link": own.detach_link,
        "detach_legacy": own.detach_legacy,
        "unpin_link": own.unpin_link,
        "record": own.record,
    }


class _Handlers:
    def __init__(self, wanted: Wanted, state_dir: str, keep_book: bool) -> None:
        self.wanted = wanted
        self.keep_book = keep_book
        self.state_dir = state_dir
        self.kind, self.target, self.pin = wanted.kind, wanted.target, wanted.link_pin

    def create_cgroup(self, step: Step) -> Undo:
        # Known as ours before it is there: a run killed in between leaves nothing that is nobody's.
        self._own(step.subject, True)
        try:
            cgroups.create(step.subject)
        except SockredirError:
            self._own(step.subject, False)
            raise
        return lambda: self._give_up(step.subject)

    def _give_up(self, path: str) -> None:
        cgroups.remove([path])
        self._own(path, False)

    def _own(self, path: str, ours: bool) -> None:
        def change(document: manifest.Manifest) -> None:
            kept = [each for each in document.get("cgroups", []) if each != path]
            document["cgroups"] = sorted([*kept, path]) if ours else kept

        if self.keep_book:
            manifest.edit(self.state_dir, change)

    def remove_cgroup(self, step: Step) -> Undo:
        if cgroups.remove([step.subject]):
            self._own(step.subject, False)
        return lambda: self._restore(step.subject)

    def _restore(self, path: str) -> None:
        self._own(path, True)
        cgroups.create(path)

    def attach_link(self, step: Step) -> Undo:
        attachments.attach_link(self.target, step.need(planning.Change).id(), self.pin)
        return self._drop_link

    def _drop_link(self) -> None:
        pinned = attachments.pinned_link(self.kind, self.pin)
        if pinned:
            attachments.detach_link(pinned.link_id)
        os.unlink(self.pin)

    def attach_legacy(self, step: Step) -> Undo:
        number = step.need(planning.Change).id()
        attachments.attach_legacy(self.target, number)
        return lambda: attachments.detach_legacy(self.target, number)

    def replace_link(self, step: Step) -> Undo:
        new, old = step.need(planning.Change).ids()
        held = libbpf.program_by_id(old)
        attachments.update_link(self.pin, new, old)
        return _holding(held, lambda: attachments.update_link(self.pin, old, new))

    def replace_legacy(self, step: Step) -> Undo:
        new, old = step.need(planning.Change).ids()
        held = libbpf.program_by_id(old)
        attachments.attach_legacy(self.target, new, old)
        return _holding(held, lambda: attachments.attach_legacy(self.target, old, new))

    def detach_link(self, step: Step) -> Undo:
        change = step.need(planning.Change)
        number, link_pin = change.id(), change.link_pin
        held = libbpf.program_by_id(number)
        if change.link_id is not None:
            attachments.detach_link(change.link_id)
        if link_pin is None:  # nobody's: there is no pin to bring back
            return None
        os.unlink(link_pin)
        return _holding(held, lambda: attachments.attach_link(self.target, number, link_pin))

    def detach_legacy(self, step: Step) -> Undo:
        number = step.need(planning.Change).id()
        held = libbpf.program_by_id(number)
        attachments.detach_legacy(self.target, number)
        return _holding(held, lambda: attachments.attach_legacy(self.target, number))

    def unpin_link(self, step: Step) -> Undo:
        held = libbpf.get(step.subject)
        os.unlink(step.subject)
        return _holding(held, lambda: libbpf.pin(held, step.subject))

    def record(self, _step: Step) -> Undo:
        if not self.keep_book:
            return None
        entry = (
            planning.record(self.wanted, observe(self.wanted, Snapshot(self.state_dir)))
            if self.wanted.present
            else None
        )
        key = (self.wanted.program, self.target)

        def change(document: manifest.Manifest) -> None:
            others = [each for each in document["attachments"] if (each.get("program"), each.get(self.kind)) != key]
            # In a certain order: the same attachments are the same wish.
            document["attachments"] = sorted([*others, entry], key=_record_order) if entry else others

        manifest.edit(self.state_dir, change)
        return None


def _record_order(entry: Record) -> List[str]:
    return [str(entry.get(key)) for key in ("program", "cgroup", "map")]


def _holding(held: libbpf.Fd, undo: Callable[[], None]) -> Callable[[], None]:
    """An undo that keeps a program or link alive until it is run or no longer wanted."""

    def run() -> None:
        undo()
        held.close()

    return run
