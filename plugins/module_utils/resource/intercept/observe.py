# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe interception rules: the map, the manifest, and the cgroups and users that rules name."""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import Any, Dict, List, Optional, Sequence

from ...datapath import intercept, intercept_doors, intercept_live, intercept_rules
from ...errors import SockredirError
from ...host import cgroups, listeners, mounts, netns, systemd
from ...kernel import hooks
from ...state import manifest
from .plan import Observed, Unlisted

_CGROUPS = ("cgroup", "proxy_cgroup")


def observe(pin_dir: str, document: Optional[manifest.Manifest]) -> Observed:
    """Reads only.

    :raises SockredirError: the map is of another version.
    """
    rules, noted = intercept_live.read_rules(pin_dir), recorded(document)
    return Observed(
        rules=rules,
        recorded=noted,
        # A host without interception is not asked where cgroups are.
        attached=attached(document) if noted or rules is not None else {},
        committed=bool(document and document["committed"]),
        files={path: text for path, text in (document or {}).get("files", {}).items() if systemd.is_of_rules(path)},
    )


def unlisted(pin_dir: str, rules: Sequence[intercept.Rule]) -> List[Unlisted]:
    """Listeners of this network namespace that were there before the programs or before a rule with ``inbound``."""
    wanted = [(rule.netns, end) for rule in rules if rule.inbound for end in rule.to]
    if not wanted or not os.path.lexists(os.path.join(pin_dir, "listeners")):
        return []
    heard = listeners.with_cgroups()
    return [found for netns_cookie, end in wanted for found in _unlisted(pin_dir, netns_cookie, end, heard)]


def _unlisted(pin_dir: str, cookie: int, end: intercept.End, heard: Sequence[listeners.Listener]) -> List[Unlisted]:
    known = intercept_live.listed(pin_dir, cookie, end)
    others = [each for each in listeners.reached(end.text, heard) if each.cookie not in known]
    return [Unlisted(cookie, end, each.inode) for each in others[: intercept_doors.LISTENERS - len(known)]]


def recorded(document: Optional[manifest.Manifest]) -> List[Dict[str, Any]]:
    """The rules that a manifest has; one of an earlier version has none."""
    return list((document or {}).get("intercepts") or [])


def attached(document: Optional[manifest.Manifest]) -> Dict[str, List[str]]:
    """Program -> what it is attached to by the manifest: cgroups, relative to the cgroup2 mount, and this namespace."""
    found: Dict[str, List[str]] = {}
    known = mounts.read()
    for entry in (document or {}).get("attachments", []):
        place = None if entry.get(manifest.LEAVING) else _place_of(entry, known)
        if place:
            found.setdefault(os.path.basename(entry["program"]), []).append(place)
    return found


def _place_of(entry: Dict[str, Any], known: List[mounts.Mount]) -> Optional[str]:
    kind, target = hooks.target(entry)
    if kind == hooks.CGROUP:
        return cgroups.relative(target, known)
    return target if kind == hooks.NETNS and netns.inode(target) == netns.inode(netns.HERE) else None


def relative(rule: Dict[str, Any]) -> Dict[str, Any]:
    """A rule with its cgroups relative to the cgroup2 mount, however they were written.

    One that is none stays as it is: :func:`.known.lacks` says so.
    """
    found = dict(rule)
    for key in _CGROUPS:
        with contextlib.suppress(SockredirError):
            found[key] = place(rule[key]) if rule.get(key) else None
    return found


def place(cgroup: str) -> str:
    """A cgroup relative to the cgroup2 mount, as rules have it.

    :raises SockredirError: it is none.
    """
    return cgroups.relative(cgroup, mounts.read()).lstrip("/") or "/"


def to_layout(rules: Sequence[Dict[str, Any]], check: bool = False) -> List[intercept.Rule]:
    """What the map has to hold.

    :param check: whether cgroups may be missing, because earlier tasks in check mode did not create them.
    :raises SockredirError: a cgroup or a user is unknown on this host; all of them are named.
    """
    found, wrong = [], []
    for rule in rules:
        try:
            found.append(intercept_rules.to_layout(rule, lambda path: _place(path, check), user, netns.cookie))
        except SockredirError as error:
            wrong.append(f"rule {rule['name']}: {error}")
    if wrong:
        raise SockredirError("; ".join(wrong))
    return found


def _place(cgroup: str, check: bool) -> intercept_rules.Place:
    known = mounts.read()
    path = cgroups.resolve(cgroup, known)
    number = cgroups.cgroup_id(path)
    if number is None and not check:
        raise SockredirError(f"cgroup {cgroup} does not exist", "create it, or start its slice")
    return number or 0, intercept_live.level_of(path, cgroups.resolve("/", known))


def user(name: str) -> int:
    """The id of a user.

    :raises SockredirError: there is none.
    """
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise SockredirError(f"proxy_user: {name} is unknown on this host", "create it, or give an id") from None
