# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn from this host: watch, look at what is silent, judge."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ..errors import SockredirError
from ..host import cgroups, mounts
from ..kernel import objects, queues
from . import alone, connections, groups, programs, report, speeds, speeds_here, verdict, watch


class Options(NamedTuple):
    """What to learn.

    :ivar source: path of the C source or object of the programs that watch.
    :ivar seconds: how long to watch.
    :ivar cgroup: whose programs to watch, absolute or relative to the cgroup2 mount; None: all of the host.
    :ivar wait_seconds: how long to wait for another run.
    :ivar state_dir: where an enabled host has its manifest.
    :ivar redirection: path of the C source or object of the programs that redirect, to measure with; None: estimate.
    """

    source: str
    seconds: float
    cgroup: Optional[str]
    wait_seconds: float
    state_dir: str
    redirection: Optional[str]


def of_host(options: Options, say: Callable[[str], None]) -> Dict[str, Any]:
    """The report on this host; one run at a time, or one for each cgroup.

    :param say: called with a line that says what it waits for.
    :raises SockredirError: not root, no such cgroup, the programs cannot be had, or another run goes on for longer.
    """
    objects.need_root()
    known = mounts.read()
    root = cgroups.resolve("/", known)
    scope = None if options.cgroup is None else _existing(cgroups.resolve(options.cgroup, known))
    data = programs.build(options.source)
    with alone.alone(scope or root, options.wait_seconds, say):
        seen = watch.watch(data, options.seconds, scope)
        silent = connections.silent(seen.living, None if scope is None else groups.by_id(scope))
        found = speeds_here.of_host(options.state_dir, options.redirection) if options.redirection else speeds.ESTIMATE
    miscounts = queues.fionread(queues.one_queue().ok is True).ok is False
    host = verdict.Host(seen.seconds, seen.active, found, () if miscounts else ("fionread",))
    ports = verdict.ports(seen.counts, silent, host)
    about = {
        "seconds": round(seen.seconds, 1),
        "watched": round(seen.share, 2),
        "cgroup": scope,
        "lost": seen.lost,
        "unseen": _unseen(seen, miscounts),
        "speeds": speeds.as_json(found),
    }
    return report.make(ports, groups.by_id(root), connections.passing([entry["port"] for entry in ports]), about)


def _unseen(seen: watch.Seen, miscounts: bool) -> List[str]:
    """Sections of docs/limits.md that matter on this kernel."""
    missed = {"fionread": miscounts and not seen.sees_fionread, "uring-waitall": not seen.sees_ring}
    return [section for section, matters in missed.items() if matters]


def _existing(path: str) -> str:
    if not os.path.isdir(path):
        raise SockredirError(f"cgroup {path} does not exist", "name one that does, or choose none")
    return path
