# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measuring: the subjects in turn, repetition by repetition, under the conditions that were asked for."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

from . import report
from .names import SUBJECTS, TCP
from .proxied import proxied
from .subjects import Subject, subjects
from .traffic import veth
from .work import PROXIED, VETH, Metric, Work

HERE = Path(__file__).resolve().parent
_FAILURES = (RuntimeError, ValueError, subprocess.TimeoutExpired)


class Plan(NamedTuple):
    """What to compare, how often, how long, and next to what other load."""

    subjects: List[str]
    repeats: int
    seconds: float
    one_cpu: bool = False
    busy: bool = False

    @property
    def condition(self) -> str:
        """Empty for the machine as it is."""
        named = (("one CPU", self.one_cpu), ("two busy loops", self.busy))
        return ", ".join(name for name, asked in named if asked)

    @property
    def cpu(self) -> Optional[int]:
        """The last one that this process may use: the first often has the interrupts."""
        return max(os.sched_getaffinity(0)) if self.one_cpu else None

    def names(self, work: Work) -> List[str]:
        """The subjects of a work, its base among them; none without anything to compare it to."""
        if work.place == PROXIED:
            return [name for name in SUBJECTS if name in work.subjects]
        named = [name for name in SUBJECTS if name in work.subjects and name in (TCP, *self.subjects)]
        return named if len(named) > 1 else []


def build_tools(directory: Path) -> None:
    """Compile sockbench."""
    compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
    if not compiler:
        raise SystemExit("benchmark: no C compiler (cc, gcc or clang) for sockbench: install gcc")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-pthread", "-o", str(directory / "sockbench")]
    subprocess.run([*command, *map(str, sorted(HERE.glob("sockbench*.c")))], check=True)


@contextlib.contextmanager
def _busy_loops(tools: Path, count: int) -> Iterator[None]:
    loops = [subprocess.Popen([str(tools / "sockbench"), "spin"]) for _turn in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure_all(works: List[Work], plan: Plan, tools: Path) -> Iterator[dict]:
    """The results of all works, those of one place after the other."""
    build_tools(tools)
    for place in sorted({work.place for work in works}):
        here = [work for work in works if work.place == place]
        names = sorted({name for work in here for name in plan.names(work)}, key=SUBJECTS.index)
        with contextlib.ExitStack() as stack:
            own = stack.enter_context(_placed(place, names, plan))
            stack.enter_context(_busy_loops(tools, 2 if plan.busy else 0))
            for work in here:
                print(work.title, flush=True, file=sys.stderr)
                yield from _measure(work, {name: own[name] for name in plan.names(work)}, plan, tools)


@contextlib.contextmanager
def _placed(place: str, names: List[str], plan: Plan) -> Iterator[Dict[str, Subject]]:
    with contextlib.ExitStack() as stack:
        if place == PROXIED:
            yield stack.enter_context(proxied(names, plan.cpu))
        else:
            netns = stack.enter_context(veth()) if place == VETH else None
            yield stack.enter_context(subjects(names, netns, plan.cpu))


def _measure(work: Work, own: Dict[str, Subject], plan: Plan, tools: Path) -> List[dict]:
    """All repetitions of a work, its subjects in turn, each turn in another order.

    One that fails is named and left out; without the base there is nothing to compare.
    """
    values: Dict[str, List[dict]] = {name: [] for name in own}
    failed: Dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name in own:
            with _noted(work, name, failed):
                stack.enter_context(work.serve(own[name], tools))
        for turn in range(plan.repeats):
            names = list(own)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name not in failed and work.base not in failed:
                    with _noted(work, name, failed):
                        values[name].append(work.run(own[name], tools, plan.seconds))
    if work.base in failed:
        values = {}
    values = {name: found for name, found in values.items() if name not in failed}
    return [_result(work, metric, values, failed, plan) for metric in work.metrics]


@contextlib.contextmanager
def _noted(work: Work, name: str, failed: Dict[str, str]) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        failed[name] = " ".join(str(error).split())
        print(f"benchmark: {work.title}: {name} left out: {failed[name]}", file=sys.stderr)


def _result(work: Work, metric: Metric, values: Dict[str, List[dict]], failed: Dict[str, str], plan: Plan) -> dict:
    figures = {name: [one[metric.key] for one in found] for name, found in values.items()}
    return {
        "work": work.id,
        "title": work.title,
        "condition": plan.condition,
        "seconds": plan.seconds,
        "metric": metric.name,
        "better": metric.better,
        "unit": metric.unit,
        "base": work.base,
        "values": figures,
        "ratios": report.ratios(figures, work.base),
        "failed": failed,
    }


def host() -> Dict[str, object]:
    """What figures depend on."""
    uname = os.uname()
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="utf-8").strip()
    return {
        "kernel": uname.release,
        "machine": uname.machine,
        "cpus": os.cpu_count(),
        "cpu": _cpu_model() or platform.processor() or uname.machine,
        "congestion_control": control,
    }


def _cpu_model() -> str:
    """As the kernel calls it; not every architecture has a name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _colon, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return ""
