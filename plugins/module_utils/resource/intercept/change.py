# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set interception rules: observe, plan, apply for ``sockredir_intercept``."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from ...change import journal
from ...change.step import Plan
from ...change.transaction import Watch, apply
from ...datapath import intercept_rules
from ...kernel import objects
from ...state import lock, manifest
from . import apply as handlers
from . import plan as planning
from .observe import lacks, observe, recorded, relative, to_layout, will_come


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
    accelerated: Optional[str] = None,
) -> Result:
    """Put exactly these rules in force; live connections stay where they are.

    :param check: change nothing, say what a run would do.
    :param accelerated: the accelerated cgroup; with it, ``check`` refuses a cgroup that does not exist and that nothing
        known makes. Else any may be missing then.
    :raises SockredirError: a rule makes no sense or cannot work here; the host is as it was.
    """
    objects.need_root()
    if check:
        document = manifest.known(state_dir)
        comes = will_come(accelerated, document) if accelerated else lambda _cgroup: True
        return _planned(rules, pin_dir, document, comes)
    with journal.change("intercept") as done, lock.hold(state_dir, wait_seconds):
        result = _planned(rules, pin_dir, manifest.known(state_dir), None)
        record = handlers.record(state_dir, pin_dir, result.rules)
        apply(result.steps, {"settings": handlers.write(pin_dir), "record": record}, watch)
        done(result.steps)
    return result


def _planned(
    rules: Sequence[Dict[str, Any]],
    pin_dir: str,
    document: Optional[manifest.Manifest],
    comes: Optional[Callable[[str], bool]],
) -> Result:
    """:param comes: in check mode, which cgroups may be missing."""
    check, given = comes is not None, [relative(rule) for rule in rules]
    wanted = intercept_rules.normal(given, recorded(document), lambda rule: lacks(rule, comes or _none_comes))
    steps = planning.plan(wanted, to_layout(wanted, check), observe(pin_dir, document), check)
    return Result(steps, wanted)


def _none_comes(_cgroup: str) -> bool:
    return False
