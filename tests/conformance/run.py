# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run conformance cases without pytest: on any host with Python 3.8, as root.

run.py                          load the programs of this checkout for this run, all cases
run.py --installed              against what is enabled on this host (as `sockredirctl exec` programs see it)
run.py --object FILE            load this object file instead of compiling
run.py stream closing.linger_sends_all 'peek[ipv6]'     only these groups, cases, runs
run.py --soak 30                      half an hour of random operations and settings, a new seed every 30 seconds
run.py --states all | drained,left    each case in its first family in these states; see conform/states.py
"""

import argparse
import contextlib
import os
import random
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from conform import redirection
from conform.cases import CASES, fuzz
from conform.runner import Bench, KernelLog
from conform.states import STATES


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="groups, cases or runs; all when none is given")
    parser.add_argument("--list", action="store_true", help="print the names and what each is about, run nothing")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--installed", action="store_true", help="use the programs enabled on this host")
    source.add_argument("--object", metavar="FILE", help="load this object file")
    parser.add_argument("--cgroup", default="sockredir.slice", help="with --installed: the accelerated cgroup")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the heavy cases (emulated CPU: 0.05)")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on hang bounds (emulated CPU: 4)")
    parser.add_argument("--repeat", type=int, default=1, help="run each this many times")
    parser.add_argument(
        "--plain", type=int, metavar="N", help="only on plain TCP, N times: is the transcript always the same?"
    )
    parser.add_argument("--states", metavar="NAMES", help="run in these states instead: all, or names with commas")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="random operations for so long, nothing else")
    parser.add_argument("--one-family", action="store_true", help="each case in its first family only")
    parser.add_argument("--verbose", action="store_true", help="counters of each run too")
    return parser.parse_args(arguments)


def selected(names, one_family=False):
    """[(case, family)] of the given names; an unknown name ends the program."""
    unknown = set(names)
    found = []
    for case in CASES.values():
        for family in case.families[:1] if one_family else case.families:
            called = {case.group, case.name, f"{case.group}.{case.name}", f"{case.name}[{family}]"}
            called.add(f"{case.group}.{case.name}[{family}]")
            unknown -= called
            if not names or called & set(names):
                found.append((case, family))
    if unknown:
        sys.exit("no such group, case or run: {}".format(", ".join(sorted(unknown))))
    return found


def opened(options):
    """The context manager that gives (plain cgroup, redirection)."""
    if options.installed:
        return redirection.installed(options.cgroup)
    if options.object:
        with open(options.object, "rb") as handle:
            return redirection.own(handle.read())
    return redirection.own(redirection.compiled())


def indented(text):
    return "      " + text.rstrip().replace("\n", "\n      ")


def chosen_states(text):
    """Names of states from the command line; an unknown one ends the program."""
    names = list(STATES) if text == "all" else text.split(",")
    unknown = sorted(set(names) - set(STATES))
    if unknown:
        sys.exit("no such state: {}; there are {}".format(", ".join(unknown), ", ".join(STATES)))
    return names


def run_one(bench, case, family, options):
    """The Results of one case in one family."""
    if not options.states:
        return [bench.run(case, family)]
    return bench.run_in_states(case, family, chosen_states(options.states)) if case.in_states else []


def run_all(bench, chosen, options):
    """Run, print a line for each, and return the results."""
    results = []
    for case, family in chosen * options.repeat:
        for result in run_one(bench, case, family, options):
            results.append(result)
            limit = f"  (limit {result.limit})" if result.limit and result.status == "passed" else ""
            print(f"{result.seconds:7.2f} s  {result.status:7}  {result.key}{limit}", flush=True)
            if result.status != "passed" or options.verbose:
                print(indented(result.detail), flush=True)
    return results


def soak(bench, options):
    """Random programs, one after the other, in both families in turn; the Results."""
    results = []
    ends = time.monotonic() + options.soak * 60
    fuzz.SECONDS = 30
    while time.monotonic() < ends:
        fuzz.SEED = str(random.SystemRandom().getrandbits(40))
        fuzz_case = CASES["new_seed"]
        result = bench.run(fuzz_case, fuzz_case.families[len(results) % len(fuzz_case.families)])
        results.append(result)
        print(f"{result.seconds:7.2f} s  {result.status:7}  {result.key} seed {fuzz.SEED}", flush=True)
        if result.status != "passed" or options.verbose:
            print(indented(result.detail), flush=True)
    return results


def repeat_plain(bench, chosen, times):
    """Run on plain TCP alone and return how many cases had more than one transcript."""
    unsteady = 0
    for case, family in chosen:
        if case.needs and case.needs():
            continue
        seen = bench.repeat_plain(case, family, times)
        steady = len(seen) == 1 and not next(iter(seen)).startswith(("Traceback", "hang"))
        unsteady += not steady
        print(f"{'steady' if steady else 'unsteady':8} {case.group}.{case.name}[{family}]", flush=True)
        if not steady:
            print(indented("\n".join(f"{count} times: {text}" for text, count in seen.items())), flush=True)
    return unsteady


def main(arguments=None):
    options = parse(arguments)
    chosen = selected(options.names, options.one_family or options.states)
    if options.list:
        for case in sorted({case.name: case for case, _family in chosen}.values(), key=lambda case: case.group):
            limit = f"  [limit {case.limit.name}]" if case.limit else ""
            print(f"{case.group}.{case.name}: {case.title}{limit}")
        return 0
    if os.geteuid() != 0:
        sys.exit("needs root: it loads programs and makes cgroups and network namespaces")
    started = time.monotonic()
    with opened(options) as (plain, redirected), KernelLog() as kernel, contextlib.ExitStack() as stack:
        bench = Bench(plain, redirected, options.scale, options.patience)
        stack.callback(bench.close)
        if options.plain:
            return min(1, repeat_plain(bench, chosen, options.plain))
        results = soak(bench, options) if options.soak else run_all(bench, chosen, options)
        complaints = kernel.complaints()
    count = {status: sum(result.status == status for result in results) for status in ("passed", "failed", "skipped")}
    if complaints:
        count["failed"] += 1
        print("failed: the kernel complained meanwhile:\n{}".format(indented("\n".join(complaints))))
    for result in results:
        if result.status == "failed":
            print(f"failed: {result.key}")
    print(
        f"conformance: Linux {os.uname().release}, Python {sys.version.split()[0]}, {time.monotonic() - started:.0f} s"
    )
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**count))
    return int(count["failed"] > 0 or count["passed"] == 0)


if __name__ == "__main__":
    sys.exit(main())
