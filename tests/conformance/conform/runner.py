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
import threading
import time
import traceback

from . import libc
from .app import ORPHANED, Net, Transcript, eventually
from .case import judge
from .states import STATES, Conductor, Operator, Talker


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
    """One case on one path, in a child process that reports over a socket pair.

    net: arguments of Net but for the last ones. operator: carries out what the case asks for and returns the answer,
    None on plain TCP. state: name of the state that the case's sockets are brought into, or None; on plain TCP
    any name makes them carry as much beforehand.
    """

    def __init__(self, case, net, leaf, bound, operator=None, state=None):
        self.lines = []
        self.error = None
        self.lo_bytes = 0
        self.done = False
        self._leaf = leaf
        self._operator = operator
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._deadline = time.monotonic() + bound
        self._buffer = b""
        self.sock, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.sock.close()
            operate = operator and _ask(theirs)
            conductor = _conductor(state, operate)
            _child(case, (*net, operate, conductor and conductor.connected), leaf, bound, theirs, self._errors)
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
            answer = "failed"
            try:
                answer = self._operator(message["operate"]) or "ok"
            except Exception:
                self.error = traceback.format_exc()
            self.sock.sendall(answer.encode() + b"\n")
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
        case.function(Net(*net), log)
    except BaseException:
        report["error"] = traceback.format_exc()
    try:
        faulthandler.cancel_dump_traceback_later()
        report["lo_bytes"] = _lo_bytes()
        sock.sendall(json.dumps(report).encode() + b"\n")
    finally:
        os._exit(0)


def _conductor(state, operate):
    if not state:
        return None
    return Conductor(state, operate) if operate else Talker()


def _ask(sock):
    one_at_a_time = threading.Lock()

    def operate(request):
        with one_at_a_time:
            sock.sendall(json.dumps({"operate": request}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                answer += sock.recv(4096)
        if answer == b"failed\n":
            raise RuntimeError(f"operator could not do: {request}")
        return answer.decode().strip()

    return operate


def _lo_bytes():
    with open("/proc/self/net/dev") as devices:
        for line in devices:
            if line.strip().startswith("lo:"):
                return int(line.split()[9])
    return 0


#: Size of the heavy cases in the states: many of them run at once.
_SCALE_IN_STATES = 0.25


class Path:
    """One of the ways in which a case runs besides plain TCP: a redirection, and the state to bring sockets into."""

    def __init__(self, redirection, state=None):
        self.redirection = redirection
        self.state = state
        self.operator = redirection.operate
        self._entries = redirection.maps.entries()
        self._before = redirection.maps.counters()
        self._state_operator = None
        if state:
            self._state_operator = Operator(state, redirection.maps)
            self._state_operator.begin()
            self.operator = self._state_operator

    def _counted(self):
        after = self.redirection.maps.counters()
        return {name: after[name] - self._before[name] for name in after if after[name] != self._before[name]}

    def judge(self, case, release, tcp, ours, patience):
        """What is wrong about the run ``ours``, and what was counted, as (list of lines, line)."""
        problems = [f"TCP: {tcp.error}"] if tcp.error else []
        if ours.error:
            problems.append(f"redirected: {ours.error}")
        problems += judge(case.limit, release, tcp.lines, ours.lines, self.state is None)
        maps = self.redirection.maps
        if not eventually(lambda: maps.entries() <= self._entries, ORPHANED * patience):
            problems.append(f"{maps.entries() - self._entries} entries left in the maps: {maps.records()[:3]}")
        counted = self._counted()
        if self.state:
            problems += self._state_operator.problems(counted, case.redirects is None)
        elif case.redirects is not None and counted.get("redirected", 0) < case.redirects:
            problems.append(f"proves nothing: of {case.redirects} or more messages to be redirected too few were")
        counts = ", ".join(f"{name} {number}" for name, number in sorted(counted.items()))
        return problems, f"lo carried {ours.lo_bytes} bytes, on TCP {tcp.lo_bytes}; counted: {counts}"

    def missing(self):
        """Why the run says nothing about the state, or None."""
        if self.state and STATES[self.state].steps and not self._state_operator.brought:
            return "makes no connection that could be brought into it"
        return None


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
        self._states = contextlib.ExitStack()
        self._loaded = {}

    def close(self):
        """Unload what the states needed."""
        self._states.close()

    def _skips(self, case, in_states=False):
        reason = case.needs() if case.needs else None
        if reason is None and (case.load or in_states) and not self.redirection.can_load:
            reason = "needs programs loaded apart, this run uses those already installed"
        return reason

    def run(self, case, family):
        """Run one case in one family on both paths at once and return its Result."""
        key = f"{case.group}.{case.name}[{family}]"
        reason = self._skips(case)
        if reason:
            return Result(key, "skipped", reason)
        with contextlib.ExitStack() as stack:
            redirection = stack.enter_context(self.redirection.apart(**case.load)) if case.load else self.redirection
            return self._compare(case, family, [Path(redirection)])[0]

    def run_in_states(self, case, family, states):
        """Run one case in one family on plain TCP and in each of the states at once; a list of Results."""
        reason = self._skips(case, in_states=True)
        if reason:
            return [Result(f"{case.group}.{case.name}[{family}]@{state}", "skipped", reason) for state in states]
        return self._compare(case, family, [Path(self._apart(state), state) for state in states])

    def _apart(self, state):
        """Programs of their own for each state: settings differ."""
        if state not in self._loaded:
            sizes = {"peers": 16384, "flows": 8192}
            self._loaded[state] = self._states.enter_context(self.redirection.apart(max_entries=sizes))
        return self._loaded[state]

    def _compare(self, case, family, paths):
        started = time.monotonic()
        runs = [self._start(case, family, path.redirection.cgroup, path.operator, path.state) for path in paths]
        plain = self._start(case, family, self.plain, None, paths[0].state)
        tcp, *ours = self._finish([plain, *runs])
        limit = case.limit.name if case.limit and case.limit.applies(self.release) else None
        results = []
        for path, run in zip(paths, ours):
            key = f"{case.group}.{case.name}[{family}]" + (f"@{path.state}" if path.state else "")
            problems, detail = path.judge(case, self.release, tcp, run, self.patience)
            status = "failed" if problems else "passed"
            if path.missing() and not tcp.error and not run.error:
                status, problems, detail = "skipped", [], path.missing()
            seconds = time.monotonic() - started
            results.append(Result(key, status, "\n".join([*problems, detail]), limit, seconds))
        return results

    def _start(self, case, family, parent, operator=None, state=None):
        self._count += 1
        leaf = Leaf(parent, f"run-{os.getpid()}-{self._count}")
        scale = self.scale * (_SCALE_IN_STATES if state else 1)
        net = (family, scale, self.patience, self.plain)
        return Run(case, net, leaf, case.bound * self.patience, operator, state)

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

    def repeat_plain(self, case, family, times):
        """Run the case on plain TCP alone; returns {transcript or error: times seen}."""
        seen = {}
        for _index in range(times):
            run = self._finish([self._start(case, family, self.plain)])[0]
            text = run.error or json.dumps(run.lines)
            seen[text] = seen.get(text, 0) + 1
        return seen
