# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout over hosts that go wrong: its budget, what it puts back, and how it goes on.

One fleet goes through a history; each test is a chapter and stands on the one before.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.reasons import Reason
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.host import inside

SERIAL = '{"sockredir_rollout_serial": [2, "100%"]}'
QUICK = (
    "-e",
    SERIAL,
    *("-e", "sockredir_rollout_soak=1"),
    *("-e", "sockredir_rollout_batch_soak=0"),
)


class Rollout:
    """One run: its output and what its report says of each host."""

    def __init__(self, fleet, *options):
        self.done = fleet.play("rollout_sockredir.yml", *QUICK, *options)
        report = json.loads((fleet.base / "sockredir-rollout.json").read_text(encoding="utf-8"))
        self.state = report["rollout"]
        self.hosts = {host["name"]: host for host in report["hosts"]}
        assert "Traceback" not in self.done.stdout + self.done.stderr

    @property
    def outcomes(self):
        return {name: host["rollout"]["outcome"] for name, host in self.hosts.items()}

    def why(self, name):
        return self.hosts[name]["rollout"]["why"]


def ids(fleet, name):
    """Kernel ids of a host's programs, maps and links."""
    found = {}
    for pin in sorted(fleet.pin_dir(name).iterdir()):
        with libbpf.get(str(pin)) as descriptor:
            info = {"program": libbpf.program_info, "map": libbpf.map_info, "link": libbpf.link_info}
            found[pin.name] = info[libbpf.kind(descriptor)](descriptor).id
    return found


def state(fleet, name):
    """All that a host is: ids, manifest."""
    return ids(fleet, name), manifest.current(str(fleet.state_dir(name)))


def is_plain(fleet, name):
    """Nothing of this collection on the host: no pin directory, nothing on its cgroup, an empty state directory."""
    state_dir = fleet.state_dir(name)
    left = list(state_dir.iterdir()) if state_dir.exists() else []
    return not fleet.pin_dir(name).exists() and not left and is_plain_tcp(fleet, name)


def is_plain_tcp(fleet, name):
    """Nothing is attached to the host's cgroup, so none of its sockets is redirected."""
    cgroup = fleet.cgroup_of(name)
    if not cgroup.exists():
        return True
    with attachments.opened("cgroup", str(cgroup)) as target:
        return not libbpf.query(target, libbpf.ATTACH_CGROUP_SOCK_OPS).program_ids


@pytest.fixture(scope="module")
def fleet(fleet_of):
    fleet = fleet_of(6)
    fleet.common = {"sockredir_build": "controller"}
    fleet.write_inventory({})
    return fleet


@pytest.fixture
def mounted():
    """Mounts a small file system over a directory until the test ends."""
    points = []

    def mount(path, options):
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
        points.append(path)

    yield mount
    for path in points:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def cannot_be_proved(fleet, mounted):
    """Makes the proof fail on a host: its tool may not be executed."""
    return lambda name: mounted(fleet.home(name) / "usr" / "sbin", "noexec,mode=755")


def test_a_host_with_too_old_a_kernel_stops_it_before_any_change(fleet):
    """Its kernel has no types of its own, and says that it is a 2.6: for the modules of this host alone."""
    old = 'mount -t tmpfs tmpfs /sys/kernel/btf; set -- setarch --uname-2.6 "$@"'
    fleet.write_inventory({"h004": {"ansible_python_interpreter": fleet.interpreter("h004", old)}})
    run = Rollout(fleet)
    assert run.done.returncode == 2
    assert run.state["state"] == "stopped"
    assert run.state["why"].startswith("1 host(s) cannot be changed, nothing was changed anywhere")
    assert run.outcomes == {**dict.fromkeys(fleet.names, "not_started"), "h004": "cannot"}
    assert run.hosts["h004"]["kernel"].startswith("2.6.")
    assert "btf (found: none; needed: /sys/kernel/btf/vmlinux" in run.why("h004")
    assert all(is_plain(fleet, name) for name in fleet.names)
    fleet.write_inventory({})


#: Where a side's state is among the members of layout.SIDE.
STATE = 7


class KernelTls:
    """A connection on a host, once it is enabled, that looks as if its server had turned to kernel TLS."""

    def __init__(self, fleet, name):
        self.port = None
        self._fleet, self._name = fleet, name
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._done.set()
        self._thread.join(60)

    def _run(self):
        flows = self._fleet.pin_dir(self._name) / "flows"
        while not self._done.wait(0.1):
            with contextlib.suppress(OSError, SockredirError), contextlib.ExitStack() as stack:
                with libbpf.Map.open_pin(str(flows)) as records:
                    self.port = self._connect(stack, records)
                self._done.wait(300)

    def _connect(self, stack, records):
        with inside(self._fleet.cgroup_of(self._name)):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
        stack.enter_context(listener.accept()[0]).sendall(b"hello")
        assert client.recv(5) == b"hello"
        port = listener.getsockname()[1]
        for key in list(records.keys()):
            known = layout.decode_key(key)
            if port in (known.local_port, known.remote_port):
                records.update(key, self._with_kernel_tls(records.lookup(key)))
                return port
        raise OSError("not redirected yet")

    @staticmethod
    def _with_kernel_tls(record):
        made = bytearray(record)
        for first in (layout.FLOW_HEAD.size, layout.FLOW_HEAD.size + layout.SIDE.size):
            side = list(layout.SIDE.unpack_from(made, first))
            side[STATE] = Reason.ULP
            layout.SIDE.pack_into(made, first, *side)
        return bytes(made)


def test_a_canary_whose_ports_would_break_stops_it(fleet):
    with KernelTls(fleet, "h001") as connection:
        run = Rollout(fleet, "-e", "sockredir_rollout_budget=0")
    assert run.done.returncode == 2
    assert run.outcomes == {**dict.fromkeys(fleet.names, "not_started"), "h001": "restored"}
    assert f"redirection would break what uses the ports {connection.port}" in run.why("h001")
    assert "add them to sockredir_exclude_ports" in run.why("h001")
    assert all(is_plain(fleet, name) for name in fleet.names)


def test_a_failing_proof_stops_it_and_the_bad_host_is_put_back(fleet, cannot_be_proved):
    cannot_be_proved("h003")
    run = Rollout(fleet, "-e", "sockredir_rollout_budget=0")
    assert run.done.returncode == 2
    assert run.state["why"] == "1 of 6 hosts failed, the budget is 0"
    assert run.outcomes == {
        "h001": "enabled",
        "h002": "enabled",
        "h003": "restored",
        "h004": "not_started",
        "h005": "not_started",
        "h006": "not_started",
    }
    assert "Verify redirection with a test transfer" in run.why("h003")
    assert [name for name in fleet.names if is_plain(fleet, name)] == ["h003", "h004", "h005", "h006"]
    assert [run.hosts[name]["status"] for name in ("h001", "h002")] == ["compliant", "compliant"]
    assert "canary 1 of 1, 1 host(s): 0 of 6 hosts done" in run.done.stdout
    assert "batch 1 of 2, 2 host(s): 1 of 6 hosts done" in run.done.stdout
    assert "stopped, batch 2 of 2 is left alone" in run.done.stdout


def test_repaired_it_goes_on_with_the_rest_until_a_full_disk_stops_it(fleet, mounted):
    done = {name: state(fleet, name) for name in ("h001", "h002")}
    mounted(fleet.state_dir("h004"), "size=16k,mode=700")
    run = Rollout(fleet, "-e", "sockredir_rollout_budget=0")
    assert run.done.returncode == 2
    assert run.state["why"] == "1 of 4 hosts failed, the budget is 0"
    assert run.outcomes == {
        "h001": "already",
        "h002": "already",
        "h003": "enabled",
        "h004": "restored",
        "h005": "not_started",
        "h006": "not_started",
    }
    assert "No space left on device" in run.why("h004")
    assert is_plain(fleet, "h004")
    assert done == {name: state(fleet, name) for name in done}


def test_it_bears_a_lost_host_within_the_budget_and_a_broken_clang_stops_it(fleet):
    """h005 is lost between loading and attaching; h006 compiles for itself, and its clang crashes."""
    done = {name: state(fleet, name) for name in ("h001", "h002", "h003")}
    tools = fleet.home("h006") / "tools"
    tools.mkdir()
    (tools / "clang").write_text(
        "#!/bin/sh\necho 'clang: error: unable to execute command: Segmentation fault' >&2\nexit 254\n"
    )
    (tools / "clang").chmod(0o755)
    fleet.write_inventory(
        {
            "h006": {
                "ansible_python_interpreter": fleet.interpreter("h006", f"mount --bind {tools}/clang /usr/bin/clang"),
                "sockredir_build": "target",
            }
        }
    )
    fleet.lose("h005", once=fleet.pin_dir("h005") / "verdict")
    run = Rollout(fleet, "-e", "sockredir_rollout_budget=1")
    assert run.done.returncode == 2
    assert run.state["why"] == "2 of 3 hosts failed, the budget is 1"
    assert run.outcomes == {
        **dict.fromkeys(done, "already"),
        "h004": "enabled",
        "h005": "unreachable",
        "h006": "restored",
    }
    assert run.why("h005") == "lost during the rollout"
    assert "Segmentation fault" in run.why("h006")
    assert is_plain(fleet, "h006")
    assert is_plain_tcp(fleet, "h005")
    assert done == {name: state(fleet, name) for name in done}


def test_repaired_it_finishes_the_rest_only(fleet):
    fleet.write_inventory({})
    fleet.find_again("h005")
    done = {name: state(fleet, name) for name in ("h001", "h002", "h003", "h004")}
    run = Rollout(fleet, "-e", "sockredir_rollout_budget=0")
    assert run.done.returncode == 0, run.done.stdout[-3000:]
    assert run.outcomes == {**dict.fromkeys(done, "already"), "h005": "enabled", "h006": "enabled"}
    assert done == {name: state(fleet, name) for name in done}
    assert {host["status"] for host in run.hosts.values()} == {"compliant"}


def test_again_it_changes_nothing(fleet):
    before = {name: state(fleet, name) for name in fleet.names}
    run = Rollout(fleet)
    assert run.done.returncode == 0
    assert set(run.outcomes.values()) == {"already"}
    assert before == {name: state(fleet, name) for name in fleet.names}


def test_a_lost_canary_stops_it_whatever_the_budget(fleet):
    before = {name: state(fleet, name) for name in fleet.names}
    fleet.write_inventory({}, {"first": ["h005"]})
    change = ("-e", '{"sockredir_ports": ["8080"]}', "-e", "sockredir_rollout_canaries=first")
    observed = fleet.state_dir("h005") / "settings.lock"
    observed.unlink(missing_ok=True)  # written again by the first change of settings: the canary's observe step
    fleet.lose("h005", once=observed)
    run = Rollout(fleet, "-e", "sockredir_rollout_budget=100%", *change)
    assert run.done.returncode == 2
    assert run.state["why"] == "a canary failed"
    assert run.outcomes == {**dict.fromkeys(fleet.names, "not_started"), "h005": "unreachable"}
    assert all(before[name] == state(fleet, name) for name in fleet.names if name != "h005")
    # What it had begun there is marked as unfinished, so that the next run knows.
    assert not manifest.current(str(fleet.state_dir("h005")))["committed"]
    fleet.find_again("h005")
    assert Rollout(fleet).outcomes["h005"] == "enabled"
    assert state(fleet, "h005")[1]["settings"] == before["h005"][1]["settings"]


def test_the_batch_that_spends_the_budget_is_put_back_when_told(fleet, cannot_be_proved):
    before = {name: state(fleet, name) for name in fleet.names}
    cannot_be_proved("h003")
    change = ("-e", '{"sockredir_ports": ["9090"]}', "-e", "sockredir_rollout_canaries=first")
    options = ("-e", "sockredir_rollout_budget=0", "-e", "sockredir_rollout_rollback_batch=true")
    fleet.write_inventory({}, {"first": ["h001"]})
    run = Rollout(fleet, *options, *change)
    assert run.done.returncode == 2
    assert run.outcomes == {
        "h001": "enabled",
        "h002": "rolled_back",
        "h003": "restored",
        "h004": "not_started",
        "h005": "not_started",
        "h006": "not_started",
    }
    settings = {name: state(fleet, name)[1]["settings"] for name in fleet.names}
    assert settings["h001"] != before["h001"][1]["settings"]
    assert all(settings[name] == before[name][1]["settings"] for name in fleet.names if name != "h001")
    assert all(manifest.current(str(fleet.state_dir(name)))["committed"] for name in fleet.names)
