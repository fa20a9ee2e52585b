# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark: ``python3 tests/bench`` as root. See docs/benchmark.md."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import List

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.collection import map_collection

map_collection()

from bench import chart, report
from bench.measure import Plan, host, measure_all
from bench.names import OBSERVE, OURS, PLAIN, UNIX
from bench.work import Work
from bench.works import GROUPS, all_works

#: Exit status when everything has been measured but what failed and was named.
SOME_FAILED = 3
SUBJECTS = {"plain": PLAIN, "sockredir": OURS, "observe": OBSERVE, "unix": UNIX}


def words(text: str) -> List[str]:
    return [word for word in text.split(",") if word]


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(prog="benchmark", description="sockredir against plain TCP, in one run.")
    own.add_argument("--repeats", type=int, default=7, metavar="N", help="paired runs of each work (7)")
    own.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of one run (1)")
    own.add_argument("--quick", action="store_true", help="3 runs of half a second")
    own.add_argument("--only", type=words, default=[], metavar="WORK,...", help="these works; --list names them")
    own.add_argument("--set", type=words, default=[], metavar="SET,...", help="these sets: " + ", ".join(GROUPS))
    own.add_argument("--list", action="store_true", help="say which works there are, and how long they take")
    own.add_argument(
        "--subjects",
        type=words,
        default=["plain", "sockredir", "unix"],
        metavar="NAME,...",
        help="what plain TCP is compared with: plain, sockredir, observe (sockredir in that mode), unix "
        "(plain,sockredir,unix)",
    )
    own.add_argument("--one-cpu", action="store_true", help="both ends on one CPU")
    own.add_argument("--busy", action="store_true", help="two busy loops beside")
    own.add_argument("--json", metavar="FILE", help="write all figures there")
    own.add_argument("--update", action="store_true", help="keep other figures that are in FILE")
    own.add_argument("--chart", metavar="FILE", help="draw a chart there (.svg, .png; needs matplotlib)")
    own.add_argument("--draw-only", action="store_true", help="measure nothing, draw the chart of --json FILE")
    return own


def read_options() -> argparse.Namespace:
    own = parser()
    options = own.parse_args()
    known = {"--only": [work.id for work in all_works()], "--set": GROUPS, "--subjects": SUBJECTS}
    for option, names in known.items():
        for name in getattr(options, option[2:]):
            if name not in names:
                own.error(f"{option}: nothing is called {name}: {', '.join(names)}")
    if options.draw_only and not (options.json and options.chart):
        own.error("--draw-only needs --json and --chart")
    if options.quick:
        options.repeats, options.seconds = 3, 0.5
    return options


def chosen(options: argparse.Namespace, plan: Plan) -> List[Work]:
    """What was asked for, without what cannot be measured here."""
    anything = not options.only and not options.set
    works = [work for work in all_works() if anything or work.id in options.only or work.group in options.set]
    works = [work for work in works if plan.names(work)]
    for program in sorted({program for work in works for program in work.missing()}):
        titles = ", ".join(work.title for work in works if program in work.missing())
        print(f"left out, {program} is not installed: {titles}", file=sys.stderr)
    return [work for work in works if not work.missing()]


def show_list(works: List[Work], plan: Plan) -> None:
    for work in works:
        seconds = plan.repeats * plan.seconds * len(plan.names(work))
        print(f"{work.id:24} {work.group:9} {seconds:4.0f} s  {work.title}")


def earlier(options: argparse.Namespace) -> List[dict]:
    """Results that are in the file and stay."""
    if not (options.json and options.update and Path(options.json).exists()):
        return []
    document = json.loads(Path(options.json).read_text(encoding="utf-8"))
    here = host()
    for key, value in document["host"].items():
        if here.get(key) != value:
            raise SystemExit(
                f"benchmark: {options.json} is of another machine ({key} was {value}, is {here.get(key)}): "
                "name another file, or leave out --update"
            )
    return document["results"]


def run(options: argparse.Namespace, plan: Plan) -> dict:
    """Measure what was asked for, and add what is known already."""
    before = earlier(options)
    with tempfile.TemporaryDirectory(prefix="sockredir-bench-") as directory:
        measured = list(measure_all(chosen(options, plan), plan, Path(directory)))
    order = [work.id for work in all_works()]
    return {
        "version": report.VERSION,
        "host": host(),
        "repeats": plan.repeats,
        "seconds": plan.seconds,
        "results": report.updated(before, measured, order),
    }


def main() -> int:
    options = read_options()
    plan = Plan(
        [SUBJECTS[name] for name in options.subjects], options.repeats, options.seconds, options.one_cpu, options.busy
    )
    if options.draw_only:
        chart.draw(json.loads(Path(options.json).read_text(encoding="utf-8")), options.chart)
        return 0
    if options.list:
        show_list(chosen(options, plan), plan)
        return 0
    if os.geteuid() != 0:
        raise SystemExit("benchmark: needs root to load programs: use sudo")
    if options.chart:
        chart.need()
    # Asked to end, it takes its servers, loops and cgroups along.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    document = run(options, plan)
    print(report.text(document))
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.chart:
        chart.draw(document, options.chart)
    return SOME_FAILED if any(result.get("failed") for result in document["results"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
