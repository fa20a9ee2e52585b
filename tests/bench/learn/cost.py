# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What learning costs: ``python3 tests/bench/learn/cost.py`` as root.

Questions and answers of 64 bytes on 20 connections, by turns watched and not. What both programs and the kernel take of
the CPUs for it is read from their cgroup, so that it does not matter how many messages there are. The exit status is 1
if watching takes more than its share of this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.collection import map_collection

map_collection()

from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import programs, watch
from bench.measure import build_tools
from bench.names import TCP
from bench.subjects import Subject, subjects
from bench.traffic import sockbench
from bench.work import endpoint
from support.learning import SOURCE, learning

_CONNECTIONS = 20
#: Both programs on one: what they take on several depends on where the scheduler puts them.
_CPU = max(os.sched_getaffinity(0))
EVERY, USED = "every message looked at", "as learn does it"


class Turn(NamedTuple):
    """Messages a second, each sent and received; of the CPUs, nanoseconds for each."""

    rate: float
    message_ns: float


class Cost(NamedTuple):
    """What watching took, and how many messages a second there were."""

    more_ns: float
    rate: float


def _used(subject: Subject) -> float:
    """Microseconds of CPU that the cgroup has had."""
    return float(re.findall(r"^usage_usec (\d+)", (subject.cgroup / "cpu.stat").read_text(), re.MULTILINE)[0])


def turn(subject: Subject, tools: Path, seconds: float) -> Turn:
    """Work for so long."""
    command = [str(tools / "sockbench"), "rr", endpoint(subject, ""), "64", str(seconds), str(_CONNECTIONS)]
    before = _used(subject)
    rate = 2 * json.loads(subject.run(command, timeout=seconds + 60))["rate"]
    return Turn(rate, (_used(subject) - before) * 1000 / (rate * seconds))


@contextlib.contextmanager
def _looking(built: Path) -> Iterator[None]:
    """Every message is looked at."""
    with programs.held(built.read_bytes(), None) as held:
        held.resume()
        yield


@contextlib.contextmanager
def _learning(built: Path, warm: Callable[[], object]) -> Iterator[None]:
    """As it is used: it looks away if there are too many messages, which it has to see first."""
    with learning("--source", str(built), "--seconds", "300", "--estimate"):
        warm()
        yield


def compare(tools: Path, turns: int, seconds: float) -> Dict[str, List[Cost]]:
    """Each kind of watching between two turns without."""
    built = tools / "learn.bpf.o"
    built.write_bytes(programs.build(str(SOURCE)))
    found: Dict[str, List[Cost]] = {EVERY: [], USED: []}
    with subjects([TCP], cpu=_CPU) as own, sockbench("rr", 64, "requests").serve(own[TCP], tools):

        def work() -> Turn:
            return turn(own[TCP], tools, seconds)

        work()
        before = work()
        for _number in range(turns):
            for kind, watching in ((EVERY, _looking(built)), (USED, _learning(built, work))):
                with watching:
                    watched = work()
                after = work()
                more = watched.message_ns - statistics.mean((before.message_ns, after.message_ns))
                found[kind].append(Cost(more, watched.rate))
                before = after
    return found


def show(kind: str, costs: List[Cost]) -> float:
    """Print it; the share of this machine's CPUs at the rate that there was."""
    low, middle, high = statistics.quantiles((cost.more_ns for cost in costs), n=4)
    rate, cpus = statistics.median(cost.rate for cost in costs), os.cpu_count() or 1
    print(f"{kind}: {middle:.0f} ns of CPU more a message ({low:.0f} to {high:.0f})")
    for per_second in (100000, rate):
        cpu = 100 * middle * per_second / 1e9
        print(f"  at {per_second:,.0f} messages a second: {cpu:.1f} % of a CPU, {cpu / cpus:.1f} % of {cpus} CPUs")
    return middle * rate / 1e9 / cpus


def main() -> int:
    own = argparse.ArgumentParser(prog="cost", description=__doc__.splitlines()[0])
    own.add_argument("--turns", type=int, default=15, metavar="N", help="turns of each kind (%(default)s)")
    own.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of a turn (%(default)s)")
    options = own.parse_args()
    with tempfile.TemporaryDirectory(prefix="sockredir-cost-") as directory:
        build_tools(Path(directory))
        found = compare(Path(directory), options.turns, options.seconds)
    shares = {kind: show(kind, costs) for kind, costs in found.items()}
    return 1 if shares[USED] > watch.SHARE else 0


if __name__ == "__main__":
    raise SystemExit(main())
