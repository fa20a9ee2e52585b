# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach programs to a cgroup or a map, or detach them: observe, plan, apply."""

from __future__ import annotations

from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from ...change import journal
from ...change.step import Plan, Step
from ...change.transaction import Handler, Watch, apply
from ...kernel.hooks import CGROUP
from ...kernel.model import Attached
from ...state import lock
from ..snapshot import Snapshot
from . import plan as planning
from .apply import handlers
from .observe import observe
from .plan import Observed, Record, Wanted


class Result(NamedTuple):
    """:ivar record: what the manifest says of the attachment now; None if it is absent.
    :ivar foreign: programs on the same target that are not this collection's.
    :ivar notes: what an operator should know, one line each.
    """

    steps: Plan
    record: Optional[Record]
    foreign: List[Attached]
    notes: List[str]


def ensure(
    wanted: Wanted, state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS
) -> Result:
    """Make it so, or with ``wanted.check`` say what that takes.

    :param wait_seconds: float, how long to wait for another run on this host.
    :raises SockredirError: it cannot be had; the host is as it was.
    """
    return ensure_all([wanted], state_dir, watch, wait_seconds)[0]


def ensure_all(
    several: Sequence[Wanted], state_dir: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS
) -> List[Result]:
    """The same for several, in their order, as one change: either all of them, or the host is as it was.

    In check mode (which all of them are in, or none) each plan is that of the host as it is.
    """
    if several[0].check:
        return [_result(wanted, observe(wanted, Snapshot(state_dir)), None) for wanted in several]
    done = _Done(state_dir)
    action = "attach" if several[0].present else "detach"
    program = ", ".join(wanted.program for wanted in several)
    with journal.change(action, program=program) as told, lock.hold(state_dir, wait_seconds):
        apply(done.steps(several), done.handlers, watch)
        steps = [step for plan in done.plans for step in plan]
        after = [observe(wanted, Snapshot(state_dir)) for wanted in several] if steps else done.observed
        told(steps)
    return [_result(*each) for each in zip(several, after, done.plans)]


class _Done:
    """Plans that are made as their turn comes: each sees what those before it have done.

    :ivar observed: List[Observed], what each was made from.
    :ivar plans: List[Plan], so far.
    :ivar handlers: those of the plan whose turn it is.
    """

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir
        self.observed: List[Observed] = []
        self.plans: List[Plan] = []
        self.handlers: Dict[str, Handler] = {}

    def steps(self, several: Sequence[Wanted]) -> Iterator[Step]:
        for wanted in several:
            self.observed.append(observe(wanted, Snapshot(self._state_dir)))
            self.plans.append(planning.plan(wanted, self.observed[-1]))
            self.handlers.update(handlers(wanted, self._state_dir))
            yield from self.plans[-1]


def _result(wanted: Wanted, observed: Observed, steps: Optional[Plan]) -> Result:
    notes = _notes(wanted, observed) if wanted.check else []
    if planning.withheld(wanted, observed):
        notes.append(f"{wanted.program} is not attached: this kernel does not meet {wanted.needs}, see sockmap_info")
    steps = planning.plan(wanted, observed) if steps is None else steps
    entry = planning.record(wanted, observed) if wanted.present else None
    return Result(steps, entry, planning.foreign(wanted, observed), notes)


def _notes(wanted: Wanted, observed: Observed) -> List[str]:
    notes = []
    if wanted.present and observed.program_id is None:
        notes.append(f"nothing is pinned at {wanted.program} yet; its type cannot be known")
    if wanted.present and observed.target_id is None and not (wanted.kind == CGROUP and wanted.create_cgroup):
        notes.append(f"{wanted.target} does not exist yet; an earlier task has to create it")
    return notes
