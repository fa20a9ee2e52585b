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
import json
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import List, NamedTuple

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


class Turn(NamedTuple):
    """Messages a second, each sent and received; of the CPUs, nanoseconds for each."""

    rate: float
    message_ns: float


def _used(subject: Subject) -> float:
    """Microseconds of CPU that the cgroup has had."""
    return float(re.findall(r"^usage_usec (\d+)", (subject.cgroup / "cpu.stat").read_text(), re.MULTILINE)[0])


def turn(subject: Subject, tools: Path, seconds: float) -> Turn:
    """Work for so long."""
    command = [str(tools / "sockbench"), "rr", endpoint(subject, ""), "64", str(seconds), str(_CONNECTIONS)]
    before = _used(subject)
    rate = 2 * json.loads(subject.run(command, timeout=seconds + 60))["rate"]
    return Turn(rate, (_used(subject) - before) * 1000 / (rate * seconds))


def compare(tools: Path, turns: int, seconds: float) -> List[List[Turn]]:
    """Pairs of turns: not watched (the mean of before and after), watched."""
    built = tools / "learn.bpf.o"
    built.write_bytes(programs.build(str(SOURCE)))
    with subjects([TCP]) as own, sockbench("rr", 64, "requests").serve(own[TCP], tools):
        turn(own[TCP], tools, seconds)
        before, pairs = turn(own[TCP], tools, seconds), []
        for _number in range(turns):
            with learning("--source", str(built), "--seconds", "300", "--estimate", "--json") as run:
                watched = turn(own[TCP], tools, seconds)
                share = json.loads(run.end())["watched"]
            after = turn(own[TCP], tools, seconds)
            pairs.append([Turn(*(statistics.mean(each) for each in zip(before, after))), watched])
            print(f"watched for {100 * share:.0f} % of the time", file=sys.stderr)
            before = after
    return pairs


def main() -> int:
    own = argparse.ArgumentParser(prog="cost", description=__doc__.splitlines()[0])
    own.add_argument("--turns", type=int, default=15, metavar="N", help="pairs of turns (%(default)s)")
    own.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of a turn (%(default)s)")
    options = own.parse_args()
    with tempfile.TemporaryDirectory(prefix="sockredir-cost-") as directory:
        build_tools(Path(directory))
        pairs = compare(Path(directory), options.turns, options.seconds)
    more = [watched.message_ns - plain.message_ns for plain, watched in pairs]
    low, middle, high = statistics.quantiles(more, n=4)
    rate = statistics.median(watched.rate for _plain, watched in pairs)
    cpus = os.cpu_count() or 1
    share = middle * 100000 / 1e9 / cpus
    print(f"without: {statistics.median(plain.message_ns for plain, _watched in pairs):.0f} ns of CPU a message")
    print(f"watched: {middle:.0f} ns more ({low:.0f} to {high:.0f}), at {rate:,.0f} messages a second")
    print(f"at 100,000 messages a second {100 * share * cpus:.1f} % of a CPU, {100 * share:.1f} % of {cpus} CPUs")
    return 1 if share > watch.SHARE else 0


if __name__ == "__main__":
    raise SystemExit(main())
