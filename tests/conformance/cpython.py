# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CPython's own tests of sockets, on plain TCP and redirected: which tests come out differently?

Not part of the default run (minutes). Needs a Python with its test package: the one that runs this script, or --python.

cpython.py                                  test_socket, test_ssl, test_asyncio and others
cpython.py test_socket test_ftplib          only these modules
cpython.py --installed                      against what is enabled on this host
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from conform import libc, redirection
from conform.runner import Leaf

MODULES = (
    "test_socket",
    "test_ssl",
    "test_asyncio",
    "test_selectors",
    "test_socketserver",
    "test_httplib",
    "test_httpservers",
    "test_ftplib",
    "test_xmlrpc",
    "test_logging",
)

#: Tests that meet a limit of docs/limits.md.
LIMITS = {
    "testOOB": "urgent-data",
    "test_handle_expt": "urgent-data",
}

# Runs in the other interpreter: one test case after the other, outcomes by name as JSON.
_RUNNER = """
import json, sys, unittest
from test import support
support.use_resources = ['network']
outcomes = {}
class Result(unittest.TestResult):
    def addSuccess(self, test): outcomes.setdefault(test.id(), 'ok')
    def addError(self, test, error):
        outcomes[test.id()] = 'error: %s' % self._exc_info_to_string(error, test)[-2000:]
    def addFailure(self, test, error):
        outcomes[test.id()] = 'failure: %s' % self._exc_info_to_string(error, test)[-2000:]
    def addSkip(self, test, reason): outcomes[test.id()] = 'skipped'
    def addExpectedFailure(self, test, error): outcomes[test.id()] = 'ok'
    def addSubTest(self, test, subtest, error):
        if error is not None: self.addError(test, error)
def wanted(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from wanted(test)
        elif not any(other in test.id() for other in ('VSOCK', 'CAN', 'RDS', 'UDP')):
            yield test
names = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[2:])
unittest.TestSuite(wanted(names)).run(Result())
with open(sys.argv[1], 'w') as handle:
    json.dump(outcomes, handle)
"""


def run(python, names, parent, seconds):
    """Start the tests ``names`` in a cgroup under ``parent`` and a network namespace of their own.

    Returns a function that waits for them and gives {test: outcome}.
    """
    leaf = Leaf(parent, f"cpython-{os.getpid()}-{time.monotonic_ns()}")
    directory = tempfile.TemporaryDirectory()
    report = os.path.join(directory.name, "report")

    def enter():
        leaf.join()
        libc.unshare_network()

    with open(os.path.join(directory.name, "output"), "w+") as output:
        process = subprocess.Popen(
            [python, "-c", _RUNNER, report, *names],
            cwd=directory.name,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=enter,
        )

    def collect():
        with directory, contextlib.ExitStack() as stack:
            stack.callback(leaf.remove)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return {", ".join(names): "hang"}
            if not os.path.exists(report):
                with open(os.path.join(directory.name, "output")) as output:
                    return {", ".join(names): f"no report: {output.read()[-2000:]}"}
            with open(report) as handle:
                return json.load(handle)

    return collect


def kind(outcome):
    """ok, skipped, failure, error, hang."""
    return (outcome or "missing").split(":")[0]


def compare(python, names, plain, redirected, seconds):
    """[(test, outcome on TCP, redirected)] of tests that come out differently, also when run once more alone."""
    collectors = [run(python, names, parent, seconds) for parent in (plain, redirected)]
    tcp, ours = [collect() for collect in collectors]
    passed = sum(kind(outcome) == "ok" for outcome in tcp.values())
    print(f"{' '.join(names)}: {len(tcp)} tests, {passed} ok on TCP", flush=True)
    different = []
    for test in sorted(set(tcp) | set(ours)):
        if kind(tcp.get(test)) == kind(ours.get(test)):
            continue
        again = [run(python, [test], parent, 300)().get(test) for parent in (plain, redirected)]
        if kind(again[0]) != kind(again[1]):
            different.append((test, again[0] or "missing", again[1] or "missing"))
    return different


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=MODULES, help="modules of CPython's test package")
    parser.add_argument("--python", default=sys.executable, help="the interpreter to test")
    parser.add_argument("--installed", action="store_true", help="use the programs enabled on this host")
    parser.add_argument("--cgroup", default="sockredir.slice", help="with --installed: the accelerated cgroup")
    parser.add_argument("--seconds", type=int, default=900, help="a module that takes longer hangs")
    options = parser.parse_args(arguments)
    opened = redirection.installed(options.cgroup) if options.installed else redirection.own(redirection.compiled())
    bad = known = 0
    with opened as (plain, redirected):
        before = redirected.maps.counters()["redirected"]
        for module in options.modules:
            for test, tcp, ours in compare(
                options.python, [f"test.{module}"], plain, redirected.cgroup, options.seconds
            ):
                limit = LIMITS.get(test.rsplit(".", 1)[-1])
                known += bool(limit)
                bad += not limit
                print(
                    f"{'limit ' + limit if limit else 'DIFFERENT'}: {test}\n  TCP: {tcp}\n  redirected: {ours}",
                    flush=True,
                )
        messages = redirected.maps.counters()["redirected"] - before
    print(f"{messages} messages redirected; {known} differences by known limits, {bad} others")
    return int(bad > 0 or messages == 0)


if __name__ == "__main__":
    sys.exit(main())
