# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set interception rules: observe, plan, apply for ``sockredir_intercept``."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from ...change import journal
from ...change.step import Plan
from ...change.transaction import Watch, apply
from ...datapath import intercept_rules
from ...kernel import objects
from ...state import lock, manifest
from . import apply as handlers
from . import plan as planning
from .observe import observe, recorded, relative, to_layout


class Result(NamedTuple):
    """:ivar rules: the rules in their canonical form."""

    steps: Plan
    rules: List[Dict[str, Any]]


def ensure(
    rules: Sequence[Dict[str, Any]],
    pin_dir: str,
    state_dir: str,
    check: bool = False,
    watch: Optional[Watch] = None,
    wait_seconds: float = lock.WAIT_SECONDS,
) -> Result:
    """Put exactly these rules in force; live connections stay where they are.

    :param check: change nothing, say what a run would do.
    :raises SockredirError: a rule makes no sense or cannot work here; the host is as it was.
    """
    objects.need_root()
    if check:
        return _planned(rules, pin_dir, manifest.known(state_dir), True)
    with journal.change("intercept") as done, lock.hold(state_dir, wait_seconds):
        result = _planned(rules, pin_dir, manifest.known(state_dir), False)
        record = handlers.record(state_dir, pin_dir, result.rules)
        apply(result.steps, {"settings": handlers.write(pin_dir), "record": record}, watch)
        done(result.steps)
    return result


def _planned(
    rules: Sequence[Dict[str, Any]], pin_dir: str, document: Optional[manifest.Manifest], check: bool
) -> Result:
    wanted = intercept_rules.normal([relative(rule) for rule in rules], recorded(document))
    steps = planning.plan(wanted, to_layout(wanted, check), observe(pin_dir, document), check)
    return Result(steps, wanted)
