# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the gain that learn predicts with that of redirection: ``python3 tests/bench/learn/promise.py`` as root.

Each program works on plain TCP while learn watches it and predicts its gain. Then it works on plain TCP and redirected
in turn. The exit status is 1 if a program gains less than predicted, by more than 15 %.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.collection import map_collection

map_collection()

from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import programs
from bench.measure import build_tools
from bench.names import OURS, TCP
from bench.subjects import subjects
from bench.work import Work
from bench.works import all_works
from support import datapath
from support.learning import SOURCE, by_port, learning

#: Those with a server whose pattern learn can name, each with a figure of which more is better.
WORKS = ("rr-64", "rr-64-200", "iperf3-default", "redis-set-64", "redis-get-4096", "pgbench")
WORKS += ("nginx-128", "nginx-128-sendfile", "nginx-1000000", "nginx-1000000-sendfile")
WITHIN = 0.15
_LINE = "{:40} {:>16} {:>9} {:>9} {:>6}  {}"


class Kept(NamedTuple):
    """What became of a promise: ratios to plain TCP; ``promised`` is None if no gain was."""

    title: str
    pattern: str
    promised: Optional[float]
    measured: float

    @property
    def off(self) -> float:
        return self.measured / (self.promised or 1.0) - 1


def objects(directory: Path) -> Path:
    """The programs that watch, and beside them those that redirect, compiled once; the former's path."""
    for source in (SOURCE, datapath.SOURCE):
        (directory / source.with_suffix(".o").name).write_bytes(programs.build(str(source)))
    return directory / SOURCE.with_suffix(".o").name


def try_out(work: Work, tools: Path, repeats: int, seconds: float) -> Kept:
    """Watch, then measure."""
    figure = next(metric.key for metric in work.metrics if metric.better == "higher")
    with subjects([TCP, OURS]) as own, contextlib.ExitStack() as stack:
        for subject in own.values():
            stack.enter_context(work.serve(subject, tools))
            work.run(subject, tools, seconds)
        options = ("--cgroup", str(own[TCP].cgroup), "--source", str(objects(tools)), "--seconds", "300", "--json")
        with learning(*options) as run:
            work.run(own[TCP], tools, 2 * seconds)
            entry = max(by_port(run.end()).values(), key=lambda one: one["bytes"])
        ratios = []
        for turn in range(repeats):
            order = [TCP, OURS] if turn % 2 else [OURS, TCP]
            figures = {name: work.run(own[name], tools, seconds)[figure] for name in order}
            ratios.append(figures[OURS] / figures[TCP])
    return Kept(work.title, entry["pattern"], entry["gain"], statistics.median(ratios))


def line(kept: Kept) -> str:
    promised = f"{kept.promised:.2f}" if kept.promised else "none"
    verdict = "LESS" if kept.off < -WITHIN else "more" if kept.off > WITHIN else "kept"
    return _LINE.format(
        kept.title,
        kept.pattern,
        promised,
        f"{kept.measured:.2f}",
        f"{100 * kept.off:+.0f} %",
        verdict if kept.promised else "",
    )


def words(text: str) -> List[str]:
    return text.split(",")


def main() -> int:
    own = argparse.ArgumentParser(prog="promise", description=__doc__.splitlines()[0])
    own.add_argument("--only", type=words, default=list(WORKS), metavar="WORK,...", help=", ".join(WORKS))
    own.add_argument("--repeats", type=int, default=5, metavar="N", help="paired runs of each work (%(default)s)")
    own.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of one run (%(default)s)")
    options = own.parse_args()
    works = [work for work in all_works() if work.id in options.only and not work.missing()]
    print(_LINE.format("work", "pattern", "promised", "measured", "off", ""))
    broken = 0
    with tempfile.TemporaryDirectory(prefix="sockredir-promise-") as directory:
        build_tools(Path(directory))
        for work in works:
            kept = try_out(work, Path(directory), options.repeats, options.seconds)
            print(line(kept), flush=True)
            broken += bool(kept.promised) and kept.off < -WITHIN
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
