# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe the services concerned, through systemd. Reads only."""

from __future__ import annotations

from typing import Iterable, List, Optional, Tuple

from ...host import cgroups, systemd
from ..snapshot import Snapshot
from .plan import Observed, Wanted


def names(listed: Iterable[str], cgroup: str, host: Snapshot) -> Tuple[str, ...]:
    """The services to put into a cgroup's slice, by their full names: none if that is the root, where all are anyway.

    :raises SockredirError: one of them cannot be a service's name.
    """
    listed = list(listed)
    if not listed or cgroups.relative(cgroup, host.mounts) == "/":
        return ()
    return tuple(sorted({systemd.service_name(name) for name in listed}))


def observe(wanted: Wanted, host: Snapshot) -> Observed:
    """What systemd says of the services concerned; reads only, and asks it only if there are any.

    :raises SockredirError: systemd does not answer, or no cgroup2 is mounted.
    """
    if not systemd.booted():
        return Observed()
    relative = cgroups.relative(wanted.cgroup, host.mounts)
    drop_ins = _drop_ins(wanted)
    inside = systemd.running_in(cgroups.resolve(wanted.cgroup, host.mounts))
    concerned = sorted({*wanted.names, *drop_ins, *inside})
    slice_name = systemd.slice_of(relative)
    found = systemd.services(concerned) if slice_name or wanted.names else []
    sockets = sorted({socket for each in found if each.name in wanted.names for socket in each.sockets})
    return Observed(True, slice_name, relative, tuple(found), tuple(drop_ins), systemd.active_in(sockets))


def _drop_ins(wanted: Wanted) -> List[str]:
    """Those for interception are another part's, unless all goes."""
    if not wanted.present:
        return systemd.drop_ins(wanted.unit_dir)
    others = systemd.drop_ins(wanted.unit_dir, systemd.INTERCEPT_DROP_IN)
    return [name for name in systemd.drop_ins(wanted.unit_dir, systemd.DROP_IN) if name not in others]


def idle_slice(cgroup: str, host: Snapshot) -> Optional[Tuple[str, str]]:
    """The slice of a cgroup and its path, if nothing is in it and no unit file keeps it; else None."""
    if not systemd.booted():
        return None
    slice_name, path = systemd.slice_of(cgroups.relative(cgroup, host.mounts)), cgroups.resolve(cgroup, host.mounts)
    if slice_name is None or not cgroups.removable([path]) or systemd.has_unit_file(slice_name):
        return None
    if systemd.occupied(slice_name):
        return None
    return slice_name, path
