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
    :ivar files: the drop-ins of services that the manifest has, with their fingerprints.
    """

    rules: Optional[List[intercept.Rule]]
    recorded: List[Dict[str, Any]]
    attached: Dict[str, List[str]]
    committed: bool = True
    files: Dict[str, str] = {}


class NewRules(NamedTuple):
    """:ivar rules: what the map is to hold.
    :ivar fresh: slots whose counters begin at 0.
    """

    rules: List[intercept.Rule]
    fresh: List[int]


class Unlisted(NamedTuple):
    """A listener of a proxy that is to get connections from outside, and that the programs do not know.

    :ivar inode: int, what proc(5) calls its socket.
    """

    netns: int
    end: intercept.End
    inode: int


class Listeners(NamedTuple):
    """:ivar rules: those whose proxies' listeners the programs are to know."""

    rules: List[intercept.Rule]


def steps(
    wanted: Sequence[Dict[str, Any]],
    rules: List[intercept.Rule],
    observed: Observed,
    unlisted: Sequence[Unlisted] = (),
) -> Plan:
    """Tell the programs these rules, if they are told something else, or else of listeners that they do not know.

    :param rules: ``wanted`` as the map has to hold them.
    """
    told = _told(wanted, rules, observed)
    if told or not unlisted:
        return told
    names = sorted({f"{each.end.address} port {each.end.port}" for each in unlisted})
    return [Step("enlist", "listeners", None, names, Listeners(rules), "listener_unknown")]


def _told(wanted: Sequence[Dict[str, Any]], rules: List[intercept.Rule], observed: Observed) -> Plan:
    if observed.rules == rules or (observed.rules is None and not wanted):
        return []
    known = {rule["slot"] for rule in observed.recorded}
    before = _shown(observed.recorded) if observed.rules else None
    new = NewRules(rules, [rule.slot for rule in rules if rule.slot not in known])
    return [Step("settings", SUBJECT, before, _shown(wanted), new, "settings_changed")]


def record(wanted: List[Dict[str, Any]], files: Dict[str, str], observed: Observed) -> Plan:
    """Have the manifest say so, and make it final.

    :param files: the wanted drop-ins, as :attr:`Observed.files`.
    """
    if wanted != observed.recorded:
        return [Step("record", f"manifest: {SUBJECT}", _shown(observed.recorded), _shown(wanted))]
    if files != observed.files:
        return [Step("record", "manifest: files", sorted(observed.files), sorted(files))]
    if observed.rules is not None and not observed.committed:
        return [Step("record", "manifest: committed", False, True)]
    return []


def refuse(wanted: List[Dict[str, Any]], observed: Observed) -> None:
    """:raises SockredirError: a rule could not work with what is loaded and attached; all of them are named."""
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
