# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of a rollout: batches, failure budget, progress. Pure; the playbook acts on it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Iterable, List, Mapping, Optional, Sequence, Union

from ansible.utils.helpers import pct_to_int

#: Outcomes that spend the failure budget. A host put back is a failure too: the change did not work there.
SPENDING = frozenset(("failed", "unreachable", "restored"))
#: Outcomes of hosts that the rollout is through with.
DONE = SPENDING | {"enabled", "rolled_back"}

Size = Union[int, str]


class RolloutError(ValueError):
    """A variable of the rollout is wrong; str() is one line."""


def share(value: Size, whole: int, variable: str) -> int:
    """A number of hosts given as a number or as a percentage of ``whole``, rounded down.

    :raises RolloutError: it is neither.
    """
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*(%?)\s*", str(value))
    if isinstance(value, bool) or not match or (match[2] and int(match[1]) > 100):
        raise RolloutError(f"{variable} is {value!r}; it must be a number of hosts or a percentage such as 5%")
    number = int(match[1])
    return whole * number // 100 if match[2] else number


def batches(serial: Sequence[Size], hosts: int) -> List[int]:
    """The sizes of the batches that Ansible's ``serial`` makes of so many hosts.

    A percentage is of all hosts, and at least one host; the last element repeats until no host is left.

    :raises RolloutError: an element is neither a number nor a percentage.
    """
    for size in serial:
        share(size, hosts, "sockredir_rollout_serial")
    sizes: List[int] = []
    left = hosts
    while left > 0:
        wanted = pct_to_int(serial[min(len(sizes), len(serial) - 1)], hosts) if serial else 0
        sizes.append(min(left, wanted) if wanted > 0 else left)
        left -= sizes[-1]
    return sizes


@dataclass(frozen=True)
class Tally:
    """Where a rollout stands.

    :param todo: int, hosts that it is to change.
    :param done: int, those of them that it is through with, well or not.
    :param spent: int, those that failed, were put back or were lost.
    :param budget: int, how many of those it bears.
    :param canary_failed: bool, a canary is among them: that ends a rollout whatever the budget.
    """

    todo: int
    done: int
    spent: int
    budget: int
    canary_failed: bool

    @property
    def why_stop(self) -> Optional[str]:
        """Why no further batch may begin; None if one may."""
        if self.canary_failed:
            return "a canary failed"
        if self.spent > self.budget:
            return f"{self.spent} of {self.todo} hosts failed, the budget is {self.budget}"
        return None


def tally(outcomes: Iterable[Mapping[str, Any]], budget: int) -> Tally:
    """Count the outcomes of the hosts that the rollout is to change.

    :param outcomes: ``{"outcome", "canary"}`` each; hosts that it leaves alone are not among them.
    :param budget: int, hosts, see :func:`share`.
    """
    known = list(outcomes)
    spent = [each for each in known if each["outcome"] in SPENDING]
    return Tally(
        todo=len(known),
        done=sum(each["outcome"] in DONE for each in known),
        spent=len(spent),
        budget=budget,
        canary_failed=any(each.get("canary") for each in spent),
    )


def time_left(done: int, todo: int, seconds: float) -> Optional[float]:
    """Seconds that the rest takes at the pace so far; None before the first host is done."""
    return seconds / done * (todo - done) if done else None


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def progress(state: Tally, seconds: float) -> str:
    """Where it stands, as a person reads it when a batch begins: ``5 of 120 hosts done, 1 failed (budget 6), ...``."""
    left = time_left(state.done, state.todo, seconds)
    estimate = "" if left is None else f", about {duration(left)} left"
    return (
        f"{state.done} of {state.todo} hosts done, {state.spent} failed (budget {state.budget}),"
        f" {duration(seconds)} so far{estimate}"
    )
