# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark: ``python3 tests/bench`` as root. See docs/benchmark.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.collection import map_collection

map_collection()

from bench import report
from bench.subjects import OURS, PLAIN, TCP, UNIX, Subject, subjects
from bench.works import VETH, Metric, Work, all_works, veth

UNITS = {"mbytes_per_second": "MB/s", "rate": "/s", "p50_us": "us", "p99_us": "us"}


def build_tools(directory: Path) -> None:
    """Compile sockbench."""
    compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
    if not compiler:
        raise SystemExit("benchmark: no C compiler (cc, gcc or clang) for sockbench: install gcc")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-pthread", "-o", str(directory / "sockbench")]
    subprocess.run([*command, str(HERE / "sockbench.c")], check=True)


def measure(work: Work, own: Dict[str, Subject], tools: Path, repeats: int, seconds: float) -> List[dict]:
    """All repetitions of a work, its subjects in turn, each turn in another order."""
    names = [name for name in work.subjects if name in own]
    values: Dict[str, List[dict]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(work.serve(own[name], tools))
        for turn in range(repeats):
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                values[name].append(work.run(own[name], tools, seconds))
    return [_result(work, metric, values) for metric in work.metrics]


def _result(work: Work, metric: Metric, values: Dict[str, List[dict]]) -> dict:
    figures = {name: [one[metric.key] for one in found] for name, found in values.items()}
    return {
        "work": work.id,
        "title": work.title,
        "metric": metric.name,
        "better": metric.better,
        "unit": UNITS[metric.key],
        "values": figures,
        "ratios": report.ratios(figures),
    }


def run(options: argparse.Namespace) -> dict:
    """Measure what was asked for; results of an earlier run in the same file stay, in the works' order."""
    works = [work for work in all_works() if not options.only or work.id in options.only.split(",")]
    missing = sorted({work.program for work in works if work.program and not shutil.which(work.program)})
    for program in missing:
        print(f"left out, {program} is not installed: " + ", ".join(w.title for w in works if w.program == program))
    works = [work for work in works if work.program not in missing]
    done: Dict[str, List[dict]] = {}
    if options.json and options.update and Path(options.json).exists():
        for result in json.loads(Path(options.json).read_text(encoding="utf-8"))["results"]:
            done.setdefault(result["work"], []).append(result)
    with tempfile.TemporaryDirectory(prefix="sockredir-bench-") as directory:
        tools = Path(directory)
        build_tools(tools)
        for place in sorted({work.place for work in works}):
            with contextlib.ExitStack() as stack:
                names = [TCP, OURS] if place == VETH else [TCP, PLAIN, OURS, UNIX]
                netns = stack.enter_context(veth()) if place == VETH else None
                own = stack.enter_context(subjects(names, netns))
                for work in works:
                    if work.place == place:
                        print(work.title, flush=True, file=sys.stderr)
                        done[work.id] = measure(work, own, tools, options.repeats, options.seconds)
    order = [work.id for work in all_works()]
    uname = os.uname()
    return {
        "version": 1,
        "host": {"kernel": uname.release, "machine": uname.machine, "cpus": os.cpu_count()},
        "repeats": options.repeats,
        "seconds": options.seconds,
        "results": [result for name in order for result in done.get(name, [])],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmark", description="sockredir against plain TCP, in one run.")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="paired runs of each work (7)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of one run (1)")
    parser.add_argument("--quick", action="store_true", help="3 runs of half a second")
    parser.add_argument("--only", metavar="WORK,...", help="; ".join(work.id for work in all_works()))
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--update", action="store_true", help="keep other works' figures that are in FILE")
    parser.add_argument("--chart", metavar="FILE", help="draw a chart there (.svg, .png; needs matplotlib)")
    parser.add_argument("--draw-only", action="store_true", help="measure nothing, draw the chart of --json FILE")
    options = parser.parse_args()
    if options.draw_only:
        if not options.json or not options.chart:
            parser.error("--draw-only needs --json and --chart")
        report.chart(json.loads(Path(options.json).read_text(encoding="utf-8")), options.chart)
        return 0
    if os.geteuid() != 0:
        raise SystemExit("benchmark: needs root to load programs: use sudo")
    if options.chart:
        report.need_chart()
    if options.quick:
        options.repeats, options.seconds = 3, 0.5
    document = run(options)
    print(report.table(document["results"]))
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.chart:
        report.chart(document, options.chart)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
