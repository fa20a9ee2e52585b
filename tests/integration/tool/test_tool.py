# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockredirctl as installed: every verb, its output, its exit code."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import live
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.connection import connection
from support.host import wait_until_detached
from support.tracing import Trace
from support.waiting import wait_for

LINE = re.compile(r"(.{1,15})-(\d+) \[\d{3}\] \d+\.\d{6}: ipv([46]) op=([45]) (\S+):(\d+) --> (\S+):(\d+)$")
PAIR = """
import socket, sys
family, address = (socket.AF_INET6, "::1") if sys.argv[1] == "6" else (socket.AF_INET, "127.0.0.1")
if sys.argv[1] == "mapped":
    listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
else:
    listener = socket.create_server((address, 0), family=family)
client = socket.create_connection((address, listener.getsockname()[1]))
server = listener.accept()[0]
client.sendall(b"ping")
server.recv(4)
print(client.getsockname()[1], listener.getsockname()[1])
"""


@pytest.fixture
def ready(managed):
    managed.enable_here()
    return managed


def tool(managed, *words):
    return [str(managed.prefix / "sbin" / "sockredirctl"), *words]


def tracing(managed):
    return live.read_settings(str(managed.sandbox.pin_dir)).settings.trace_until > time.monotonic_ns()


def connect(managed, family="4"):
    """A connection under the tool's exec; its ports."""
    done = managed.ctl("exec", "python3", "-c", PAIR, family)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


def test_exec_puts_a_program_in_the_cgroup_and_keeps_its_exit_code(ready):
    where = ready.ctl("exec", "cat", "/proc/self/cgroup")
    assert f"0::/{ready.sandbox.cgroup.name}\n" in where.stdout
    assert ready.ctl("exec", "sh", "-c", "exit 7").returncode == 7
    assert ready.ctl("exec", "--", "sh", "-c", "exit 8").returncode == 8
    assert ready.ctl("exec", "sh", "-c", "kill -9 $$").returncode == -9
    missing = ready.ctl("exec", "no-such-program")
    assert (missing.returncode, missing.stderr) == (127, "sockredirctl: no-such-program: not found\n")
    refused = ready.ctl("exec", "/etc/passwd")
    assert (refused.returncode, refused.stderr) == (126, "sockredirctl: /etc/passwd: Permission denied\n")
    assert ready.ctl("exec").returncode == 2


def test_exec_passes_options_on_and_leaves_signals_as_they_are(ready):
    done = ready.ctl("exec", "sh", "-c", 'echo "$@"; grep SigIgn /proc/$$/status', "sh", "--json", "-x", "--", "a b")
    assert done.stdout.splitlines()[0] == "--json -x -- a b"
    ignored = int(done.stdout.split()[-1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


def test_exec_inside_stays_where_it_is(ready):
    inner = ready.sandbox.cgroup / "inner"
    inner.mkdir()
    command = tool(ready, "exec", "cat", "/proc/self/cgroup")
    start = f'echo $$ > {inner}/cgroup.procs; exec "$@"'
    done = subprocess.run(["sh", "-c", start, "sh", *command], capture_output=True, text=True, check=True)
    assert f"0::/{ready.sandbox.cgroup.name}/inner\n" in done.stdout


def test_exec_where_the_cgroup_has_gone_says_so(ready):
    ready.sandbox.cgroup.rmdir()
    done = ready.ctl("exec", "true")
    assert done.returncode == 3
    assert done.stderr == f"sockredirctl: cgroup {ready.sandbox.cgroup} does not exist; run: sockredirctl restore\n"


def test_counters_in_three_forms(ready):
    connect(ready)
    shown = ready.ctl("counters")
    assert shown.returncode == 0
    assert re.search(r"^redirected +message +\d+ +4 B ", shown.stdout, re.MULTILINE), shown.stdout
    found = json.loads(ready.ctl("counters", "--json").stdout)
    assert found["counters"]["redirected"] == {"messages": 1, "bytes": 4}
    assert found["counters"]["socket_added"]["messages"] == 2
    assert found["memory"]["budget"] == 16 << 20
    metrics = ready.ctl("counters", "--prometheus").stdout.splitlines()
    assert 'sockredir_messages_total{reason="redirected"} 1' in metrics
    assert 'sockredir_message_bytes_total{reason="redirected"} 4' in metrics
    names = [line.split()[2] for line in metrics if line.startswith("# TYPE ")]
    assert len(names) == len(set(names))
    label = r"\{(reason=\"[a-z_]+\"|port=\"\d+\")\}"
    assert all(line.startswith("#") or re.fullmatch(rf"[a-z_]+({label})? \d+", line) for line in metrics)
    assert ready.ctl("counters", "--json", "--prometheus").returncode == 2


def test_flows(ready):
    assert ready.ctl("flows").stdout == ""
    with connection(ready.sandbox.cgroup) as pair:
        pair.send("client", 1000)
        assert pair.receive("server", 1000)
        first, second = ready.ctl("flows").stdout.splitlines()
        assert re.fullmatch(r"127\.0\.0\.1:(\d+) --> 127\.0\.0\.1:(\d+) redirected 1 messages 1000 B", first)
        assert re.fullmatch(r"127\.0\.0\.1:(\d+) --> 127\.0\.0\.1:(\d+) undecided 0 messages 0 B", second)
        (flow,) = json.loads(ready.ctl("flows", "--json").stdout)
        assert sorted(side["bytes"] for side in flow["sides"]) == [0, 1000]
        assert sorted(side["server"] for side in flow["sides"]) == [False, True]


@pytest.mark.parametrize(("family", "shown"), [("4", "4"), ("6", "6"), ("mapped", "4")])
def test_trace_shows_both_ends_of_a_connection(ready, family, shown):
    trace = Trace(ready)
    wait_for(lambda: tracing(ready))
    client, server = connect(ready, family)
    code, lines, err = trace.end()
    assert (code, err) == (0, "")
    parsed = [LINE.match(line) for line in lines]
    assert all(parsed), lines
    address = "[::1]" if family == "6" else "127.0.0.1"
    found = {(match[3], match[4], match[5], int(match[6]), match[7], int(match[8])) for match in parsed}
    assert found == {(shown, "4", address, client, address, server), (shown, "5", address, server, address, client)}
    assert len(lines) == 2
    assert any(match[1].startswith("python3") for match in parsed)


def test_trace_ends_by_time_and_by_count(ready):
    assert Trace(ready, "--seconds", "0.3").end(None) == (0, [], "")
    trace = Trace(ready, "--count", "3")
    wait_for(lambda: tracing(ready))
    for _number in range(3):
        connect(ready)
    code, lines, _err = trace.end(None)
    assert (code, len(lines)) == (0, 3)
    assert ready.ctl("trace", "--seconds", "0").returncode == 2
    assert ready.ctl("trace", "--count", "-1").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_trace_turns_itself_off(ready, number):
    trace = Trace(ready)
    wait_for(lambda: tracing(ready))
    assert trace.end(number)[0] == 0
    assert live.read_settings(str(ready.sandbox.pin_dir)).settings.trace_until == 0
    assert ready.ctl("status").returncode == 0


def test_a_killed_trace_ends_all_the_same(ready):
    trace = Trace(ready)
    wait_for(lambda: tracing(ready))
    trace.end(signal.SIGKILL)
    wait_for(lambda: not tracing(ready))


def test_traces_side_by_side_all_see_everything(ready):
    traces = [Trace(ready) for _number in range(3)]
    wait_for(lambda: tracing(ready) and all(trace.rings() == 1 for trace in traces))
    connect(ready)
    first = traces.pop()
    assert len(first.end()[1]) == 2
    assert tracing(ready), "others still want it"
    connect(ready)
    assert [len(trace.end()[1]) for trace in traces] == [4, 4]
    assert not tracing(ready)


def test_a_trace_goes_on_over_a_change_of_mode(ready):
    trace = Trace(ready)
    wait_for(lambda: tracing(ready))
    assert ready.ctl("mode", "observe").returncode == 0
    assert tracing(ready)
    connect(ready)
    assert len(trace.end()[1]) == 2


def test_a_trace_that_nobody_reads_any_more_ends(ready):
    trace = Trace(ready)
    wait_for(lambda: tracing(ready))
    trace.process.stdout.close()
    connect(ready)
    trace.process.wait(30)
    assert trace.process.returncode == 3
    assert trace.process.stderr.read() == ""
    wait_for(lambda: not tracing(ready))


def test_mode_is_kept_and_status_agrees(ready):
    for mode in ("observe", "drain", "enforce"):
        done = ready.ctl("mode", mode)
        assert done.returncode == 0, done.stderr
        status = ready.status()
        assert (status["mode"], status["drift"]) == (mode, [])
        assert manifest.current(str(ready.sandbox.state_dir))["settings"]["mode"] == mode
        assert manifest.current(str(ready.sandbox.state_dir))["committed"]
        assert "already" in ready.ctl("mode", mode).stdout
    assert ready.ctl("mode", "stop").returncode == 2
    ready.ctl("mode", "drain")
    assert ready.enable_here()[-1], "enabling asks for enforce again"
    assert ready.status()["mode"] == "enforce"


def test_restore_after_a_reboot_and_rollback(ready):
    ready.enable_here("v2")
    digest = ready.pin("verdict").object.digest
    for path in ready.sandbox.pin_dir.iterdir():
        path.unlink()
    ready.sandbox.pin_dir.rmdir()
    wait_until_detached(ready.sandbox.cgroup)
    manifest.amend(str(ready.sandbox.state_dir), lambda document: document.update(boot_id="an earlier boot"))
    done = ready.ctl("restore")
    assert done.returncode == 0, done.stderr
    assert "pin" in done.stdout
    assert ready.ctl("status").returncode == 0, ready.ctl("status").stdout
    assert ready.pin("verdict").object.digest == digest
    assert ready.ctl("restore").stdout == "the host is as its manifest says\n"
    assert manifest.previous(str(ready.sandbox.state_dir)), "restoring is no change"
    done = ready.ctl("rollback")
    assert done.returncode == 0, done.stderr
    assert ready.pin("verdict").object.digest != digest
    assert ready.ctl("status").returncode == 0, ready.ctl("status").stdout
    assert ready.ctl("rollback").returncode == 0
    assert ready.pin("verdict").object.digest == digest


def test_nothing_to_roll_back_to(ready):
    done = ready.ctl("rollback")
    assert done.returncode == 3
    assert "there is no previous manifest" in done.stderr
    assert ready.ctl("status").returncode == 0


def test_help_names_every_verb_and_the_exit_codes(ready):
    shown = ready.ctl("--help")
    assert shown.returncode == 0
    for verb in ("status", "exec", "counters", "flows", "ports", "trace", "mode", "restore", "rollback"):
        assert f"    {verb}" in shown.stdout
        assert ready.ctl(verb, "--help").returncode == 0
    assert "exit codes:" in shown.stdout
    assert ready.ctl().returncode == 2
    assert ready.ctl("no-such-verb").returncode == 2
