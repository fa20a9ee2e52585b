# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a case on both paths, each in a process, a cgroup and a network namespace of its own, and compares."""

import contextlib
import faulthandler
import json
import os
import platform
import re
import resource
import select
import signal
import socket
import tempfile
import time
import traceback

from . import libc
from .app import SOON, Net, Transcript, eventually
from .case import judge


def kernel_release():
    """The running kernel's release as a tuple of numbers, such as (6, 12, 43)."""
    return tuple(int(part) for part in re.findall(r"\d+", platform.release().split("-")[0]))


class Result:
    """What became of one case in one family. status: passed, failed or skipped."""

    def __init__(self, key, status, detail="", limit=None, seconds=0.0):
        self.key = key
        self.status = status
        self.detail = detail
        self.limit = limit
        self.seconds = seconds


class KernelLog:
    """What the kernel logs while this is open; warnings and oopses are failures of the run as a whole."""

    _BAD = re.compile(r"WARNING:|BUG:|Oops|general protection|refcount_t|KASAN|RIP:|hung task|soft lockup")

    def __enter__(self):
        try:
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError:
            self._fd = -1
        return self

    def __exit__(self, *_exception):
        if self._fd >= 0:
            os.close(self._fd)

    def complaints(self):
        """Bad lines since this was opened."""
        found = []
        while self._fd >= 0:
            try:
                line = os.read(self._fd, 8192).decode(errors="replace")
            except BlockingIOError:
                break
            except OSError:
                continue  # records were overwritten: go on with the oldest left
            if self._BAD.search(line):
                found.append(line.split(";", 1)[-1].splitlines()[0])
        return found


class Leaf:
    """A cgroup for the processes of one run, made under ``parent``; removing it kills what still runs in it."""

    def __init__(self, parent, name):
        self.path = os.path.join(parent, name)
        os.makedirs(self.path)

    def join(self):
        """Move the calling process in; sockets it makes from now on belong to this cgroup."""
        with open(os.path.join(self.path, "cgroup.procs"), "w") as procs:
            procs.write("0")

    def _kill(self):
        with open(os.path.join(self.path, "cgroup.procs")) as procs:
            pids = [int(line) for line in procs]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    def remove(self):
        """Kill the processes and remove the cgroup."""

        def gone():
            try:
                os.rmdir(self.path)
            except FileNotFoundError:
                pass
            except OSError:
                self._kill()
                return False
            return True

        if not eventually(gone):
            raise RuntimeError(f"{self.path}: processes of a case cannot be ended")


class Run:
    """One case on one path, in a child process that reports over a socket pair."""

    def __init__(self, case, net, leaf, bound):
        self.lines = []
        self.error = None
        self.lo_bytes = 0
        self.done = False
        self._leaf = leaf
        self._operator = net[-1]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._deadline = time.monotonic() + bound
        self._buffer = b""
        self.sock, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.sock.close()
            _child(case, net, leaf, bound, theirs, self._errors)
        theirs.close()

    def poll(self):
        """Take in what the child said; notice its end and its deadline."""
        if select.select([self.sock], [], [], 0)[0]:
            part = self.sock.recv(1 << 20)
            self._buffer += part
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                self._take(json.loads(line.decode()))
            if not part and not self.done:
                self._end("the process died without a word")
        if not self.done and time.monotonic() > self._deadline:
            self._end("hang")

    def _take(self, message):
        if "operate" in message:
            answer = b"ok\n"
            try:
                self._operator(message["operate"])
            except Exception:
                answer = b"failed\n"
                self.error = traceback.format_exc()
            self.sock.sendall(answer)
            return
        self.lines, self.lo_bytes = message["lines"], message["lo_bytes"]
        self.error = self.error or message["error"]
        self.done = True

    def _end(self, error):
        self.done = True
        os.kill(self.pid, signal.SIGKILL)
        self._errors.seek(0)
        self.error = "{}\n{}".format(error, self._errors.read().decode(errors="replace")[-6000:])

    def close(self):
        """End all processes of the run."""
        if not self.done:
            self._end("ended early")
        self.sock.close()
        os.waitpid(self.pid, 0)
        self._leaf.remove()
        self._errors.close()


def _child(case, net, leaf, bound, sock, errors):
    """Body of the case's main process, with ``net`` the arguments of Net. Never returns."""
    report = {"lines": [], "error": None, "lo_bytes": 0}
    try:
        os.setsid()
        os.dup2(errors.fileno(), 2)
        faulthandler.dump_traceback_later(max(1, bound - 1), file=errors)
        leaf.join()
        libc.unshare_network()
        log = Transcript()
        report["lines"] = log.lines
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        *options, operator = net
        case.function(Net(*options, operator and _ask(sock)), log)
    except BaseException:
        report["error"] = traceback.format_exc()
    try:
        faulthandler.cancel_dump_traceback_later()
        report["lo_bytes"] = _lo_bytes()
        sock.sendall(json.dumps(report).encode() + b"\n")
    finally:
        os._exit(0)


def _ask(sock):
    def operate(request):
        sock.sendall(json.dumps({"operate": request}).encode() + b"\n")
        if sock.recv(100) != b"ok\n":
            raise RuntimeError(f"operator could not do: {request}")

    return operate


def _lo_bytes():
    with open("/proc/self/net/dev") as devices:
        for line in devices:
            if line.strip().startswith("lo:"):
                return int(line.split()[9])
    return 0


class Bench:
    """Runs cases against one redirection.

    plain: a cgroup2 directory whose processes are on plain TCP. redirection: see redirection.py.
    scale: size of the heavy cases. patience: factor on all hang bounds.
    """

    def __init__(self, plain, redirection, scale=1.0, patience=1.0):
        self.plain = plain
        self.redirection = redirection
        self.scale = scale
        self.patience = patience
        self.release = kernel_release()
        self._count = 0

    def run(self, case, family):
        """Run one case in one family on both paths at once and return its Result."""
        key = f"{case.group}.{case.name}[{family}]"
        started = time.monotonic()
        reason = case.needs() if case.needs else None
        if reason is None and case.load and not self.redirection.can_load:
            reason = "needs programs loaded apart, this run uses those already installed"
        if reason:
            return Result(key, "skipped", reason)
        if case.load:
            with self.redirection.apart(**case.load) as apart:
                problems, detail = self._compare(case, family, apart)
        else:
            problems, detail = self._compare(case, family, self.redirection)
        limit = case.limit.name if case.limit and case.limit.applies(self.release) else None
        seconds = time.monotonic() - started
        return Result(key, "failed" if problems else "passed", "\n".join(problems + [detail]), limit, seconds)

    def _compare(self, case, family, redirection):
        entries = redirection.maps.entries()
        before = redirection.maps.counters()
        ours, tcp = self._both(case, family, redirection)
        problems = [f"TCP: {tcp.error}"] if tcp.error else []
        if ours.error:
            problems.append(f"redirected: {ours.error}")
        problems += judge(case.limit, self.release, tcp.lines, ours.lines)
        if not eventually(lambda: redirection.maps.entries() <= entries, SOON * self.patience):
            problems.append(f"{redirection.maps.entries() - entries} entries left in the maps")
        after = redirection.maps.counters()
        counted = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        messages = counted.get("redirected", 0)
        if case.redirects is not None and messages < case.redirects:
            problems.append(f"proves nothing: {messages} messages went redirected, expected at least {case.redirects}")
        counts = ", ".join(f"{name} {number}" for name, number in sorted(counted.items()))
        return problems, f"lo carried {ours.lo_bytes} bytes, on TCP {tcp.lo_bytes}; counted: {counts}"

    def _start(self, case, family, parent, operator=None):
        self._count += 1
        leaf = Leaf(parent, f"run-{os.getpid()}-{self._count}")
        return Run(case, (family, self.scale, self.patience, self.plain, operator), leaf, case.bound * self.patience)

    @staticmethod
    def _finish(runs):
        try:
            while not all(run.done for run in runs):
                select.select([run.sock for run in runs if not run.done], [], [], 0.2)
                for run in runs:
                    if not run.done:
                        run.poll()
        finally:
            for run in runs:
                run.close()
        return runs

    def _both(self, case, family, redirection):
        runs = [
            self._start(case, family, redirection.cgroup, redirection.operate),
            self._start(case, family, self.plain),
        ]
        return self._finish(runs)

    def repeat_plain(self, case, family, times):
        """Run the case on plain TCP alone; returns {transcript or error: times seen}."""
        seen = {}
        for _index in range(times):
            run = self._finish([self._start(case, family, self.plain)])[0]
            text = run.error or json.dumps(run.lines)
            seen[text] = seen.get(text, 0) + 1
        return seen
