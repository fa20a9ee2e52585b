# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a program to a cgroup or a map, or detach it: observe, plan, apply."""

from __future__ import annotations

from typing import List, NamedTuple, Optional

from ...change import journal
from ...change.step import Plan
from ...change.transaction import Watch, apply
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
    if wanted.check:
        return _result(wanted, observe(wanted, Snapshot(state_dir)), None)
    action = "attach" if wanted.present else "detach"
    with journal.change(action, program=wanted.program) as done, lock.hold(state_dir, wait_seconds):
        observed = observe(wanted, Snapshot(state_dir))
        steps = planning.plan(wanted, observed)
        apply(steps, handlers(wanted, state_dir), watch)
        after = observe(wanted, Snapshot(state_dir)) if steps else observed
        done(steps)
    return _result(wanted, after, steps)


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
