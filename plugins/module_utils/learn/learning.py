# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn from this host: watch, look at what is silent, judge."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from . import connections, groups, report, verdict, watch


def learn(
    source: str, seconds: float, scope: Optional[str], root: str, wait_seconds: float, say: Callable[[str], None]
) -> Dict[str, Any]:
    """The report on this host; one run at a time.

    :param source: str, path of the C source or object.
    :param seconds: float, how long to watch.
    :param scope: str, directory of the cgroup whose programs to watch; None: all of the host.
    :param root: str, where cgroup2 is mounted.
    :param wait_seconds: float, how long to wait for another run.
    :param say: told what there is to wait for.
    :raises SockredirError: the programs cannot be had, or another run goes on for longer.
    """
    data = watch.build(source)
    with watch.alone(root, wait_seconds, say):
        seen = watch.watch(data, seconds, scope)
    paths = groups.by_id(root)
    inside = None if scope is None else groups.by_id(scope)
    silent = connections.silent(seen.living, inside)
    ports = verdict.ports(seen.counts, silent, seen.seconds)
    passing = connections.passing([entry["port"] for entry in ports])
    about = {"seconds": round(seen.seconds, 1), "cgroup": scope, "lost": seen.lost}
    return report.make(ports, paths, passing, about)
