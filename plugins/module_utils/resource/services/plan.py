# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps reload systemd's unit files, start the slice, and restart services. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ...change.step import Plan, Step
from ...errors import SockredirError
from ...host import systemd


class Wanted(NamedTuple):
    """:ivar cgroup: the accelerated cgroup, as the operator names it.
    :ivar unit_dir: directory of the host's own unit files.
    :ivar names: the services that are to be in the cgroup's slice, sorted.
    :ivar restart: whether running services may be restarted to get there, or away from there.
    :ivar present: whether the slice is to be there; False as all of it is removed.
    :ivar check: what an earlier task would have installed may be missing.
    """

    cgroup: str
    unit_dir: str
    names: Tuple[str, ...] = ()
    restart: bool = False
    present: bool = True
    check: bool = False


class Observed(NamedTuple):
    """:ivar booted: whether systemd runs this host.
    :ivar slice: the slice unit that has the accelerated cgroup; None if it is not a slice's.
    :ivar relative: the accelerated cgroup, relative to the cgroup2 mount.
    :ivar services: the wanted ones, those in the slice, and those that have one of our drop-ins.
    :ivar drop_ins: the services that have one of our drop-ins.
    :ivar sockets: the slices of the active socket units that start wanted services, by name.
    """

    booted: bool = False
    slice: Optional[str] = None
    relative: str = "/"
    services: Tuple[systemd.Service, ...] = ()
    drop_ins: Tuple[str, ...] = ()
    sockets: Mapping[str, str] = MappingProxyType({})


def refuse(wanted: Wanted, observed: Observed) -> None:
    """:raises SockredirError: the wanted services cannot be put into the cgroup."""
    if not wanted.names:
        return
    if not observed.booted:
        raise SockredirError("services: systemd does not run on this host", "leave services empty")
    if observed.slice is None:
        raise SockredirError(
            f"services: the cgroup {wanted.cgroup} does not belong to a slice, so no service can be put there",
            "set cgroup to a slice, such as sockredir.slice",
        )
    unknown = [service.name for service in observed.services if service.name in wanted.names and not service.known]
    if unknown and not wanted.check:
        raise SockredirError(f"services: systemd does not know {', '.join(unknown)}", "install it, or correct the name")


def waiting(wanted: Wanted, observed: Observed) -> List[str]:
    """The running services that are in another cgroup than their next start will put them in."""
    if observed.slice is None:
        return []
    released = [name for name in observed.drop_ins if name not in wanted.names]
    return systemd.waiting(observed.services, wanted.names, released, observed.relative)


def listening_elsewhere(observed: Observed) -> List[str]:
    """The socket units that make the listeners of wanted services outside the slice.

    A connection belongs to the cgroup in which its listener was made (``sk_clone()``), whoever accepts it.
    """
    ours = observed.slice or ""
    return sorted(name for name, where in observed.sockets.items() if not systemd.lies_in(where, ours))


def plan(wanted: Wanted, observed: Observed, changed: Iterable[str]) -> Plan:
    """The steps that come after the files.

    :param changed: paths of the files that the plan writes or removes.
    :raises SockredirError: see :func:`refuse`.
    """
    refuse(wanted, observed)
    steps: Plan = []
    if observed.booted and any(is_unit_file(path, wanted.unit_dir) for path in changed):
        steps.append(Step("reload", "systemd", "the unit files as they were", "the unit files as they are now"))
        if observed.slice and wanted.present:
            steps.append(Step("start_slice", observed.slice, "as it is", "active"))
    if wanted.restart:
        steps += [Step("restart", name, "running", "restarted") for name in waiting(wanted, observed)]
    return steps


def is_unit_file(path: str, unit_dir: str) -> bool:
    """Whether systemd reads a file at this path."""
    return path.startswith(unit_dir.rstrip("/") + "/")
