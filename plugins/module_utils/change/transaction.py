# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a plan as a transaction: either all of it, or the host is left as it was."""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, Optional

from ..errors import SockredirError
from .step import Step, describe

#: What undoes a step that was done; None if there is nothing to undo.
Undo = Optional[Callable[[], None]]
#: Does a step and returns its undo.
Handler = Callable[[Step], Undo]
#: Called for each step, with ``"before"`` or ``"after"``. Fault tests kill the process there.
Watch = Callable[[str, Step], None]


def apply(steps: Iterable[Step], handlers: Dict[str, Handler], watch: Optional[Watch] = None) -> None:
    """Do the steps in order; when one fails, undo the ones before it, last first.

    :param steps: the plan; one that is made while it is done (a generator) may look at what earlier steps have made.
    :param handlers: the handler of each verb in the plan.
    :raises SockredirError: the failing step's own error; an undo that fails too is named in its detail.
    """
    undos: List[Callable[[], None]] = []
    doing = "planning"
    try:
        for step in steps:
            doing = describe(step)
            if watch:
                watch("before", step)
            undo = handlers[step.verb](step)
            if undo:
                undos.append(undo)
            if watch:
                watch("after", step)
            doing = "planning"
    except Exception as error:
        raise _rolled_back(doing, error, undos) from error


def _rolled_back(doing: str, error: Exception, undos: List[Callable[[], None]]) -> SockredirError:
    failed = [str(problem) for problem in map(_attempt, reversed(undos)) if problem]
    known = error if isinstance(error, SockredirError) else SockredirError(f"{doing} failed: {error}")
    if not failed:
        return known
    detail = "\n".join([known.detail, "could not be undone:"] + failed).strip()
    return SockredirError(known.message, known.cure, detail)


def _attempt(undo: Callable[[], None]) -> Optional[Exception]:
    try:
        undo()
    except Exception as error:
        return error
    return None
