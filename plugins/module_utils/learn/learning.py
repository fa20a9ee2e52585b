# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn from this host: watch, look at what is silent, judge."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Optional

from ..errors import SockredirError
from ..host import cgroups, mounts
from ..kernel import objects
from . import connections, groups, report, verdict, watch


def of_host(
    source: str, seconds: float, cgroup: Optional[str], wait_seconds: float, say: Callable[[str], None]
) -> Dict[str, Any]:
    """The report on this host; one run at a time.

    :param source: str, path of the C source or object.
    :param seconds: float, how long to watch.
    :param cgroup: str, whose programs to watch, absolute or relative to the cgroup2 mount; None: all of the host.
    :param wait_seconds: float, how long to wait for another run.
    :param say: told what there is to wait for.
    :raises SockredirError: not root, no such cgroup, the programs cannot be had, or another run goes on for longer.
    """
    objects.need_root()
    known = mounts.read()
    root = cgroups.resolve("/", known)
    scope = None if cgroup is None else _existing(cgroups.resolve(cgroup, known))
    data = watch.build(source)
    with watch.alone(root, wait_seconds, say):
        seen = watch.watch(data, seconds, scope)
    silent = connections.silent(seen.living, None if scope is None else groups.by_id(scope))
    ports = verdict.ports(seen.counts, silent, seen.seconds)
    passing = connections.passing([entry["port"] for entry in ports])
    about = {"seconds": round(seen.seconds, 1), "cgroup": scope, "lost": seen.lost}
    return report.make(ports, groups.by_id(root), passing, about)


def _existing(path: str) -> str:
    if not os.path.isdir(path):
        raise SockredirError(f"cgroup {path} does not exist", "name one that does, or choose none")
    return path
