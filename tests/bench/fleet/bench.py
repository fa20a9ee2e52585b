# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet costs: enable, a converged re-run and the audit, against ``ping`` on the same hosts with the same forks.

    python tests/bench/fleet/bench.py --sizes 10 200 --forks 10 --rounds 3

Runs as root on one machine: hosts with a local connection, each with pins, programs, cgroup and state of its own.
Times are wall time per host; every round runs ping next to what it is compared with, and the median round counts. Exit
code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from support.collection import map_collection

map_collection()

from support.fleet import Fleet, local_fleet

PING = str(Path(__file__).with_name("ping.yml"))
#: Wall time of a converged host, at most so many times a ping of it.
AUDIT_LIMIT, CONVERGED_LIMIT = 1.5, 6.0
#: Time per host of the largest fleet, at most so many times that of the smallest.
GROWTH_LIMIT = 1.2


class Cost(NamedTuple):
    seconds: float
    peak_kib: int


class Size(NamedTuple):
    """Seconds per host and KiB of one fleet."""

    hosts: int
    enable: Cost
    ping: Cost
    audit: Cost
    converged: Cost
    audit_ratio: float
    converged_ratio: float


def measure(fleet: Fleet, playbook: str, forks: int, *options: str) -> Cost:
    """Run a playbook to its end; the peak is that of the largest process of the controller."""
    command = fleet.command(playbook, "--forks", str(forks), *options)
    with open(fleet.base / "output.txt", "w", encoding="utf-8") as output:
        begin = time.monotonic()
        process = subprocess.Popen(
            command, env=fleet.environment(), cwd=fleet.base, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(fleet.base / 'output.txt').read_text()[-4000:]}")
    return Cost(seconds / len(fleet.names), usage.ru_maxrss)


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(cost.seconds for cost in costs), max(cost.peak_kib for cost in costs))


def one_size(hosts: int, forks: int, rounds: int) -> Size:
    with tempfile.TemporaryDirectory(prefix="sockredir-bench-") as base, local_fleet(Path(base), hosts) as fleet:
        enable = measure(fleet, "enable_sockredir.yml", forks)
        runs: Dict[str, List[Cost]] = {PING: [], "audit_sockredir.yml": [], "enable_sockredir.yml": []}
        for _round in range(rounds):
            for playbook, costs in runs.items():
                costs.append(measure(fleet, playbook, forks))
        ping, audit, converged = runs.values()
        return Size(
            hosts,
            enable,
            *map(median, (ping, audit, converged)),
            audit_ratio=statistics.median(a.seconds / p.seconds for a, p in zip(audit, ping)),
            converged_ratio=statistics.median(c.seconds / p.seconds for c, p in zip(converged, ping)),
        )


def show(sizes: Sequence[Size], forks: int, rounds: int) -> None:
    print(f"forks {forks}, {os.cpu_count()} CPUs, {rounds} rounds")
    print("milliseconds of wall time per host (MiB of the controller)")
    print("| hosts | ping | audit | converged re-run | enable | audit / ping | re-run / ping |")
    print("|---|---|---|---|---|---|---|")
    for size in sizes:
        cells = [
            f"{cost.seconds * 1000:.0f} ({cost.peak_kib / 1024:.0f})"
            for cost in (size.ping, size.audit, size.converged, size.enable)
        ]
        print(f"| {size.hosts} | {' | '.join(cells)} | {size.audit_ratio:.2f} | {size.converged_ratio:.2f} |")


def missed(sizes: Sequence[Size]) -> List[str]:
    """The targets that were not reached, each in one line."""
    lines = []
    for size in sizes:
        for name, ratio, limit in (
            ("audit", size.audit_ratio, AUDIT_LIMIT),
            ("converged re-run", size.converged_ratio, CONVERGED_LIMIT),
        ):
            if ratio > limit:
                lines.append(f"{name} of {size.hosts} hosts: {ratio:.2f} times a ping, the target is {limit}")
    small, large = sizes[0], sizes[-1]
    for name in ("ping", "audit", "converged"):
        growth = getattr(large, name).seconds / getattr(small, name).seconds
        if growth > GROWTH_LIMIT:
            lines.append(
                f"{name}: {growth:.2f} times the time per host at {large.hosts} hosts, the target is {GROWTH_LIMIT}"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 200], metavar="HOSTS")
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes = [one_size(hosts, options.forks, options.rounds) for hosts in sorted(options.sizes)]
    show(sizes, options.forks, options.rounds)
    lines = missed(sizes)
    print("\n".join(lines) or "all targets reached")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
