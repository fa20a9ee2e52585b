# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe interception rules: the map, the manifest, and the cgroups and users that rules name."""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ...datapath import intercept, intercept_live, intercept_rules
from ...errors import SockredirError
from ...host import cgroups, mounts, systemd
from ...state import manifest
from .plan import Observed

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
    )


def recorded(document: Optional[manifest.Manifest]) -> List[Dict[str, Any]]:
    """The rules that a manifest has; one of an earlier version has none."""
    return list((document or {}).get("intercepts") or [])


def attached(document: Optional[manifest.Manifest]) -> Dict[str, List[str]]:
    """Program -> the cgroups that it is attached to, relative to the cgroup2 mount, by the manifest."""
    found: Dict[str, List[str]] = {}
    known = mounts.read()
    for entry in (document or {}).get("attachments", []):
        if entry.get("cgroup") and not entry.get(manifest.LEAVING):
            found.setdefault(os.path.basename(entry["program"]), []).append(cgroups.relative(entry["cgroup"], known))
    return found


def relative(rule: Dict[str, Any]) -> Dict[str, Any]:
    """A rule with its cgroups relative to the cgroup2 mount, however they were written.

    One that is none stays as it is: :func:`lacks` says so.
    """
    found = dict(rule)
    for key in _CGROUPS:
        with contextlib.suppress(SockredirError):
            found[key] = _relative(rule[key]) if rule.get(key) else None
    return found


def _relative(cgroup: str) -> str:
    return cgroups.relative(cgroup, mounts.read()).lstrip("/") or "/"


def lacks(rule: Dict[str, Any], comes: Callable[[str], bool]) -> List[str]:
    """What a rule names that this host does not have, each in one line.

    :param comes: whether a cgroup that does not exist yet will, relative to the cgroup2 mount.
    """
    needs: List[Tuple[str, Callable[[str], object]]] = [(key, lambda path: _need(path, comes)) for key in _CGROUPS]
    found = []
    for key, need in [*needs, ("proxy_user", _user)]:
        try:
            if rule.get(key) not in (None, ""):
                need(str(rule[key]))
        except SockredirError as error:
            found.append(str(error))
    return found


def _need(cgroup: str, comes: Callable[[str], bool]) -> None:
    if cgroups.cgroup_id(cgroups.resolve(cgroup, mounts.read())) is None and not comes(_relative(cgroup)):
        raise SockredirError(f"cgroup {cgroup} does not exist", "create it, start its slice, or correct the name")


def will_come(accelerated: str, document: Optional[manifest.Manifest]) -> Callable[[str], bool]:
    """Which cgroups may be missing before the role has done its work, relative to the cgroup2 mount.

    Those that it makes: the accelerated one and those above it. Those that it makes again, as after a reboot: what
    the manifest names. And slices that systemd knows: each is there once a service in it starts.
    """
    again = {place for places in attached(document).values() for place in places}
    ours = cgroups.relative(accelerated, mounts.read())

    def comes(cgroup: str) -> bool:
        path = "/" + cgroup.strip("/")
        name = systemd.slice_of(cgroup)
        made = (ours + "/").startswith(path + "/") or path in again
        return made or bool(name and systemd.booted() and systemd.knows_slice(name))

    return comes


def to_layout(rules: Sequence[Dict[str, Any]], check: bool = False) -> List[intercept.Rule]:
    """What the map has to hold.

    :param check: whether cgroups may be missing, because earlier tasks in check mode did not create them.
    :raises SockredirError: a cgroup or a user is unknown on this host; all of them are named.
    """
    found, wrong = [], []
    for rule in rules:
        try:
            found.append(intercept_rules.to_layout(rule, lambda path: _place(path, check), _user))
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


def _user(name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise SockredirError(f"proxy_user: {name} is unknown on this host", "create it, or give an id") from None
