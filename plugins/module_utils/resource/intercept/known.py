# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host has the cgroups and the users that rules name. Reads only."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ...errors import SockredirError
from ...host import cgroups, mounts, systemd
from ...state import manifest
from .observe import attached, place, user
from .placing import CGROUP_OF

Rule = Dict[str, Any]


class Given(NamedTuple):
    """:ivar accelerated: the accelerated cgroup, relative to the cgroup2 mount.
    :ivar check: whether what the role makes, later, may be missing.
    :ivar strict: whether nothing else may be missing.
    """

    document: Optional[manifest.Manifest]
    accelerated: str
    check: bool
    strict: bool


def accelerated(cgroup: Optional[str], document: Optional[manifest.Manifest]) -> str:
    """The accelerated cgroup relative to the cgroup2 mount; as it is if there is no such mount.

    :param cgroup: as the operator names it; None: the manifest's, else the usual one.
    """
    path = str(cgroup or (document or {}).get("cgroup") or "sockredir.slice")
    with contextlib.suppress(SockredirError):
        path = place(path)
    return path


def lacks(rule: Rule, given: Given) -> List[str]:
    """What a rule names that this host does not have, each in one line; services apart, and their slices."""
    places = [cgroup for key, cgroup in CGROUP_OF.items() if not rule[key]]
    needs: List[Tuple[str, Callable[[str], object]]] = [(key, lambda path: _need(path, given)) for key in places]
    found = []
    for key, need in [*needs, ("proxy_user", user)]:
        try:
            if rule.get(key) not in (None, ""):
                need(str(rule[key]))
        except SockredirError as error:
            found.append(str(error))
    return found


def _need(cgroup: str, given: Given) -> None:
    there = cgroups.cgroup_id(cgroups.resolve(cgroup, mounts.read())) is not None
    if not there and (given.strict and not (given.check and _will_come(place(cgroup), given))):
        raise SockredirError(f"cgroup {cgroup} does not exist", "create it, start its slice, or correct the name")


def _will_come(cgroup: str, given: Given) -> bool:
    """Whether a cgroup may be missing before the role has done its work.

    Those that it makes: the accelerated one and those above it. Those that it makes again, as after a reboot: what
    the manifest names. And slices that unit files name: each is there once a service in it starts.
    """
    path, ours = "/" + cgroup.strip("/"), "/" + given.accelerated.strip("/")
    again = {there for places in attached(given.document).values() for there in places}
    if (ours + "/").startswith(path + "/") or path in again:
        return True
    name = systemd.slice_of(cgroup)
    return bool(name and systemd.booted() and systemd.knows_slice(name))
