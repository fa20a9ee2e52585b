# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps write the wanted interception rules. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from ...change.step import Plan, Step
from ...datapath import intercept, intercept_rules
from ...errors import SockredirError

SUBJECT = "intercepts"


class Observed(NamedTuple):
    """:ivar rules: what the map holds; None if there is no such map.
    :ivar recorded: what the manifest says.
    :ivar attached: program -> the cgroups that it is attached to.
    """

    rules: Optional[List[intercept.Rule]]
    recorded: List[Dict[str, Any]]
    attached: Dict[str, List[str]]
    committed: bool = True


class NewRules(NamedTuple):
    """:ivar rules: what the map is to hold.
    :ivar fresh: slots whose counters begin at 0.
    """

    rules: List[intercept.Rule]
    fresh: List[int]


def steps(wanted: Sequence[Dict[str, Any]], rules: List[intercept.Rule], observed: Observed) -> Plan:
    """Tell the programs these rules, if they are told something else.

    :param rules: ``wanted`` as the map has to hold them.
    """
    if observed.rules == rules or (observed.rules is None and not wanted):
        return []
    known = {rule["slot"] for rule in observed.recorded}
    before = _shown(observed.recorded) if observed.rules else None
    new = NewRules(rules, [rule.slot for rule in rules if rule.slot not in known])
    return [Step("settings", SUBJECT, before, _shown(wanted), new, "settings_changed")]


def plan(wanted: List[Dict[str, Any]], rules: List[intercept.Rule], observed: Observed, check: bool = False) -> Plan:
    """The steps from what is there to what is wanted; empty if that is the same.

    :param check: whether what earlier tasks would have loaded and attached may be missing.
    :raises SockredirError: a rule could not work; all of them are named.
    """
    if not check:
        _refuse(wanted, observed)
    found = steps(wanted, rules, observed)
    if wanted != observed.recorded:
        found.append(Step("record", f"manifest: {SUBJECT}", _shown(observed.recorded), _shown(wanted)))
    elif observed.rules is not None and not observed.committed:
        found.append(Step("record", "manifest: committed", False, True))
    return found


def _refuse(wanted: List[Dict[str, Any]], observed: Observed) -> None:
    if observed.rules is None and wanted:
        raise SockredirError(
            "there is no map for interception rules",
            "load intercept.bpf.c with sockmap_program into the same pin_dir",
        )
    wrong = [found for found in (intercept_rules.missing(rule, observed.attached) for rule in wanted) if found]
    if wrong:
        raise SockredirError("; ".join(wrong))


def _shown(rules: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    return {rule["name"]: {key: value for key, value in rule.items() if key not in ("name", "slot")} for rule in rules}
