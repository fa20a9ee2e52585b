# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps attach a program to a cgroup, a map or a network namespace, or detach it. Pure.

Ours are: the link at our pin, and every attachment of a program whose id is known as ours. All others are foreign: on a
cgroup or a namespace they stay beside ours, on a map they forbid ours. Only programs at the same hook count: what a
target has at others is another attachment.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Tuple

from ...change.step import UNKNOWN, Plan, Step
from ...errors import SockredirError
from ...kernel.hooks import CGROUP, MAP, NETNS, Hook
from ...kernel.model import LEGACY, LINK, Attached, PinnedLink
from ..program.plan import Pinned

#: A manifest's entry for one attachment.
Record = Dict[str, Any]
#: The id of what a plan before this one would load.
NOT_LOADED = -1
#: What the kernel assigns, and differs in each boot.
RECORD_IDS = ("program_id", "cgroup_id", "map_id", "netns_ino", "link_id", "met")
RECORD_KEYS = RECORD_IDS + ("program", "cgroup", "map", "netns", "attach_type", "method", "link_pin", "needs")


class Wanted(NamedTuple):
    """:ivar kind: ``cgroup``, ``map`` or ``netns``, what ``target`` is: the cgroup's directory, the map's pin or the
        namespace's file.
    :ivar method: ``auto``, ``link`` or ``legacy``.
    :ivar check: only show what would happen; what an earlier task would have made may be missing.
    :ivar hook: where the program belongs, as the manifest has it; None: as its type says.
    :ivar needs: what the kernel has to do right for it; on one that does not, the program is withheld.
    :ivar start_slice: whether systemd is to have started the slice whose cgroup it is, before anything is attached.
    :ivar gone: other attachments that the same run takes off before this one: their program and cgroup.
    """

    program: str
    kind: str
    target: str
    method: str = "auto"
    present: bool = True
    create_cgroup: bool = False
    start_slice: bool = False
    check: bool = False
    hook: Optional[Hook] = None
    needs: Optional[str] = None
    gone: FrozenSet[Tuple[str, str]] = frozenset()

    @property
    def link_pin(self) -> str:
        """Where the link is pinned: beside the program, by the target's name."""
        digest = hashlib.sha256(os.fsencode(self.target)).hexdigest()[:8]
        return os.path.join(os.path.dirname(self.program), f"link_{os.path.basename(self.program)}_{digest}")


class Observed(NamedTuple):
    """:ivar hook: where the program belongs; None: nothing is pinned or recorded that would tell.
    :ivar program_id: what is pinned as the program; None: nothing.
    :ivar target_id: id of the cgroup or map, inode of the namespace; None: there is none.
    :ivar attached: every program attached at the hook of the target itself.
    :ivar pinned: what the link's pin holds.
    :ivar ours: ids of programs that are, or were, the wanted one.
    :ivar links: whether the kernel attaches to such targets by links.
    :ivar exclusive: the cgroup whose programs forbid others.
    :ivar missing: directories to make for the cgroup to exist, outermost first.
    :ivar inactive_slice: the slice unit whose cgroup it is, if that is not active.
    :ivar removable: cgroups that we made for it and that are empty, innermost first.
    :ivar record: the manifest's entry.
    :ivar met: whether the kernel does what the program needs; None: it could not be tried, or needs nothing.
    """

    program_id: Optional[int] = None
    target_id: Optional[int] = None
    attached: Tuple[Attached, ...] = ()
    pinned: Optional[PinnedLink] = None
    ours: FrozenSet[int] = frozenset()
    links: bool = True
    exclusive: Optional[str] = None
    missing: Tuple[str, ...] = ()
    inactive_slice: Optional[str] = None
    removable: Tuple[str, ...] = ()
    record: Optional[Record] = None
    hook: Optional[Hook] = None
    met: Optional[bool] = None


class Change(NamedTuple):
    """What is attached or detached.

    :ivar program_id: the program; None only in a plan that is not carried out.
    :ivar replaced_id: the program that it replaces in place.
    :ivar link_id: the link that is detached.
    :ivar link_pin: the pin that goes with that link.
    """

    program_id: Optional[int]
    replaced_id: Optional[int] = None
    link_id: Optional[int] = None
    link_pin: Optional[str] = None

    def ids(self) -> Tuple[int, int]:
        """The program and the one that it replaces.

        :raises ValueError: one of them is unknown.
        """
        if self.program_id is None or self.replaced_id is None:
            raise ValueError(f"the ids of both programs are needed: {self}")
        return self.program_id, self.replaced_id

    def id(self) -> int:
        """The program.

        :raises ValueError: it is unknown.
        """
        if self.program_id is None:
            raise ValueError(f"the id of the program is needed: {self}")
        return self.program_id


def plan(wanted: Wanted, observed: Observed) -> Plan:
    """The steps from what is there to what is wanted; empty if that is the same.

    :raises SockredirError: it cannot be had: what it needs is missing, or belongs to somebody else.
    """
    steps = _present(wanted, observed) if wanted.present else _absent(wanted, observed)
    entry = record(wanted, observed) if wanted.present else None
    if steps or entry != observed.record:
        steps.insert(
            _record_place(steps), Step("record", f"manifest: {wanted.target}", _short(observed.record), _short(entry))
        )
    return steps


def withheld(wanted: Wanted, observed: Observed) -> bool:
    """Whether the program is not to be attached although it is wanted: this kernel is not known to be fit for it."""
    return bool(wanted.present and wanted.needs and not observed.met)


def _record_place(steps: Plan) -> int:
    """The manifest says what is attached once it is; it forgets before the cgroup goes."""
    return next((place for place, step in enumerate(steps) if step.verb == "remove_cgroup"), len(steps))


def foresee(wanted: Wanted, observed: Observed, pinned: Mapping[str, Pinned]) -> Observed:
    """What will be there when a plan before this one has been carried out.

    :param pinned: what that plan pins, by path.
    """
    if wanted.program in pinned:
        observed = observed._replace(program_id=NOT_LOADED)
    target = pinned.get(wanted.target)
    if target and target.id is None:
        return observed._replace(target_id=NOT_LOADED, attached=())
    return observed._replace(target_id=target.id) if target else observed


def ours(wanted: Wanted, observed: Observed) -> List[Attached]:
    """Those of the attached programs that are ours, the pinned link's first."""
    pinned_id = observed.pinned.link_id if observed.pinned else None
    found = [each for each in observed.attached if _is_pinned(each, pinned_id) or each.program_id in observed.ours]
    return sorted(found, key=lambda each: not _is_pinned(each, pinned_id))


def foreign(wanted: Wanted, observed: Observed) -> List[Attached]:
    """Those that are not this collection's."""
    known = ours(wanted, observed)
    return [each for each in observed.attached if each not in known]


def _is_pinned(each: Attached, pinned_id: Optional[int]) -> bool:
    return each.method == LINK and each.link_id == pinned_id


def method(wanted: Wanted, observed: Observed) -> str:
    """``link`` or ``legacy``: as asked for, else as it is, else what the kernel has.

    A map's program needs no link to be replaced in place and to live as long as the map's pin.
    """
    if wanted.method != "auto":
        return wanted.method
    known = [each.method for each in ours(wanted, observed)]
    if known:
        return LEGACY if LEGACY in known and not _pinned_here(observed) else LINK
    if observed.record:
        return observed.record["method"]
    return LINK if wanted.kind == NETNS or (wanted.kind == CGROUP and observed.links) else LEGACY


def _pinned_here(observed: Observed) -> Optional[Attached]:
    """The attachment that our link's pin keeps; None if the pin is missing or its link is dead."""
    pinned_id = observed.pinned.link_id if observed.pinned else None
    return next((each for each in observed.attached if _is_pinned(each, pinned_id)), None)


def record(wanted: Wanted, observed: Observed) -> Record:
    """What the manifest says of the attachment, from what is there."""
    how = method(wanted, observed)
    kept = _kept(wanted, observed, how)
    return {
        "program": wanted.program,
        "program_id": observed.program_id,
        "cgroup": wanted.target if wanted.kind == CGROUP else None,
        "cgroup_id": observed.target_id if wanted.kind == CGROUP else None,
        "map": wanted.target if wanted.kind == MAP else None,
        "map_id": observed.target_id if wanted.kind == MAP else None,
        "netns": wanted.target if wanted.kind == NETNS else None,
        "netns_ino": observed.target_id if wanted.kind == NETNS else None,
        "attach_type": observed.hook.name if observed.hook else None,
        "method": how,
        "link_pin": wanted.link_pin if how == LINK and not withheld(wanted, observed) else None,
        "link_id": kept.link_id if kept else None,
        "needs": wanted.needs,
        "met": bool(observed.met) if wanted.needs else None,
    }


def _short(entry: Optional[Record]) -> Optional[Dict[str, Any]]:
    if entry is None:
        return None
    shown = {key: entry.get(key) for key in ("program", "program_id", "method")}
    if entry.get("needs"):
        shown.update(needs=entry["needs"], met=entry.get("met"))
    return {**shown, "program_id": UNKNOWN} if entry.get("program_id") == NOT_LOADED else shown


def _kept(wanted: Wanted, observed: Observed, how: str) -> Optional[Attached]:
    """The attachment that stays, or whose program is replaced in place."""
    if how == LINK:
        return _pinned_here(observed)
    candidates = [each for each in ours(wanted, observed) if each.method == LEGACY]
    same = [each for each in candidates if each.program_id == observed.program_id]
    return next(iter(same + candidates), None)


def _intruder(wanted: Wanted, observed: Observed) -> Optional[Attached]:
    """A foreign program in the only place of a map: it has replaced this collection's."""
    entry = None if withheld(wanted, observed) else observed.record
    had = wanted.kind == MAP and entry and entry["program_id"] and entry["map_id"] == observed.target_id
    others = foreign(wanted, observed) if had else []
    return others[0] if others and others[0].method == LEGACY else None


def _present(wanted: Wanted, observed: Observed) -> Plan:
    _refuse(wanted, observed)
    if withheld(wanted, observed):
        return _absent(wanted, observed)
    how = method(wanted, observed)
    kept = _kept(wanted, observed, how) or _intruder(wanted, observed)
    steps = [Step("create_cgroup", path, None, "directory") for path in observed.missing]
    if observed.inactive_slice:
        steps.append(Step("start_slice", observed.inactive_slice, "inactive", "active"))
    surplus = [_detach(wanted, observed, each) for each in ours(wanted, observed) if each != kept]
    steps += _attach_steps(wanted, observed, how, kept, surplus)
    return steps + (_drop_stale_pin(wanted, observed) if how == LEGACY else [])


def _attach_steps(wanted: Wanted, observed: Observed, how: str, kept: Optional[Attached], surplus: Plan) -> Plan:
    after = _shown(wanted.program, observed.program_id, how)
    if kept is None:
        attach = Step(f"attach_{how}", wanted.target, None, after, Change(observed.program_id))
        # On a map a new program takes the old one's place, unless a link holds it.
        if wanted.kind == MAP:
            return [step for step in surplus if step.verb == "detach_link"] + [attach]
        return [attach] + surplus
    if kept.program_id == observed.program_id:
        return surplus
    change = Change(observed.program_id, replaced_id=kept.program_id)
    return [Step(f"replace_{how}", wanted.target, _shown(None, kept.program_id, how), after, change)] + surplus


def _absent(wanted: Wanted, observed: Observed) -> Plan:
    steps = [_detach(wanted, observed, each) for each in ours(wanted, observed)] + _drop_stale_pin(wanted, observed)
    if not foreign(wanted, observed):
        steps += [Step("remove_cgroup", path, "directory", None) for path in observed.removable]
    return steps


def _drop_stale_pin(wanted: Wanted, observed: Observed) -> Plan:
    """This collection's pin, if its link is dead (the cgroup was removed) or is on something else."""
    if observed.pinned is None or _pinned_here(observed):
        return []
    return [Step("unpin_link", wanted.link_pin, _shown(None, observed.pinned.program_id, LINK), None)]


def _detach(wanted: Wanted, observed: Observed, each: Attached) -> Step:
    before = _shown(None, each.program_id, each.method)
    pinned = wanted.link_pin if each == _pinned_here(observed) else None
    change = Change(each.program_id, link_id=each.link_id, link_pin=pinned)
    return Step(f"detach_{each.method}", wanted.target, before, None, change)


def _shown(program: Optional[str], program_id: Optional[int], how: str) -> Dict[str, Any]:
    shown = {"program_id": UNKNOWN if program_id == NOT_LOADED else program_id, "method": how}
    return {"program": program, **shown} if program else shown


def _refuse(wanted: Wanted, observed: Observed) -> None:
    if observed.program_id is None and not wanted.check:
        raise SockredirError(f"program: nothing is pinned at {wanted.program}", "load it first, with sockmap_program")
    if observed.target_id is None and not wanted.check:
        _refuse_missing_target(wanted)
    if wanted.method == LEGACY and wanted.kind == NETNS:
        raise SockredirError("method: a network namespace takes programs only by links", "use method: auto")
    if wanted.method == LINK and not observed.links:
        since = {CGROUP: "5.7", MAP: "6.10", NETNS: "5.9"}[wanted.kind]
        raise SockredirError(
            f"method: this kernel has no links to a {wanted.kind} (they need Linux {since})", "use method: auto"
        )
    if observed.exclusive and not _kept(wanted, observed, method(wanted, observed)):
        raise SockredirError(
            f"cgroup {wanted.target}: {observed.exclusive} holds a program that was attached exclusively, so the kernel"
            " accepts no other on it or below it",
            "have its owner attach it with ALLOW_MULTI, or choose another cgroup",
        )
    others = foreign(wanted, observed)
    if wanted.kind == MAP and others and not _intruder(wanted, observed):
        raise SockredirError(
            f"map {wanted.target}: program {others[0].program_id} is attached to it ({others[0].method}), and it is not"
            " this collection's",
            "have its owner detach it, or choose another map",
        )


def _refuse_missing_target(wanted: Wanted) -> None:
    if wanted.kind == MAP:
        raise SockredirError(
            f"map: nothing is pinned at {wanted.target}", "load its program first, with sockmap_program"
        )
    if wanted.kind == NETNS:
        raise SockredirError(f"netns: {wanted.target} does not exist", "name the file of a network namespace")
    if not wanted.create_cgroup:
        raise SockredirError(f"cgroup: {wanted.target} does not exist", "create it, or set create_cgroup: true")
