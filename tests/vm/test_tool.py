# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines come and go without a trace, and what keeps them from coming is one clear line. Real qemu, empty disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from support.machines import SHARED, VM, until


def test_a_terminated_start_takes_its_machine_along(vm):
    tool = vm.start("up", str(vm.disk), "--name", "a")
    tool.terminate()
    assert tool.wait(30) == 143
    assert not vm.qemus()
    assert not vm.leftovers()


def test_a_killed_run_takes_its_machine_along_and_the_next_sweeps_up(vm):
    tool = vm.start("run", str(vm.disk), "--", "true")
    tool.kill()
    tool.wait()
    until(lambda: not vm.qemus())
    assert vm.leftovers()
    vm.fails("run", "/no/such/image", "--", "true")
    assert not vm.leftovers()


def test_a_machine_outlives_a_killed_start_until_destroyed(vm):
    tool = vm.start("up", str(vm.disk), "--name", "a")
    tool.kill()
    tool.wait()
    assert len(vm.qemus()) == 1
    assert "a: pid" in vm("list").stdout
    assert "runs already" in vm.fails("up", str(vm.disk), "--name", "a")
    assert vm("down").returncode == 0
    assert not vm.qemus()
    assert not vm.leftovers()


def test_a_killed_machine_ends_its_start(vm):
    tool = vm.start("up", str(vm.disk), "--name", "a")
    for pid in vm.qemus():
        os.kill(pid, signal.SIGKILL)
    assert tool.wait(60) == 1
    assert "qemu of 'a' ended" in tool.stderr.read()
    assert not vm.leftovers()


def test_destroy_ends_a_creation_that_its_playbook_left(vm):
    platforms = json.dumps([{"name": name, "image": str(vm.disk)} for name in ("a", "b")])
    tool = vm.start("create", "--group", "g", platforms)
    assert "already" in vm.fails("create", "--group", "g", platforms)
    assert vm("down", "--group", "g").returncode == 0
    assert tool.wait(30) == 143
    assert not vm.qemus()
    assert not vm.leftovers()


def test_two_checkouts_do_not_share_a_directory_of_molecule(vm, tmp_path):
    """Molecule names its directory after the checkout's last path component alone."""
    other = tmp_path / "other" / "checkout"
    shutil.copytree(SHARED, other / "molecule" / "shared")
    claim = f"--claim={tmp_path / 'molecule.default'}"
    platforms = json.dumps([{"name": "a", "image": str(vm.disk)}])
    tool = vm.start("create", "--group", "g", claim, platforms)
    there = subprocess.run(
        [str(other / "molecule/shared/vm"), "down", "--group", "g", claim],
        env=vm.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert there.returncode == 1
    assert str(SHARED.parents[1]) in there.stderr
    assert "MOLECULE_EPHEMERAL_DIRECTORY" in there.stderr
    assert len(vm.qemus()) == 1
    assert vm("down", "--group", "g", claim).returncode == 0
    tool.wait(30)


def test_only_own_processes_are_ended(vm):
    tool = vm.start("up", str(vm.disk), "--name", "a")
    tool.kill()
    tool.wait()
    (qemu,) = vm.qemus()
    [pid_file] = vm.cache.glob("**/qemu.pid")
    with subprocess.Popen(["sleep", "60"]) as stranger:
        pid_file.write_text(f"{stranger.pid}\n")
        assert vm("down").returncode == 0
        assert stranger.poll() is None
        stranger.kill()
    os.kill(qemu, signal.SIGKILL)
    until(lambda: not vm.qemus())


def test_two_machines_get_two_ports(vm):
    tools = [vm.start("up", str(vm.disk), "--name", "a")]
    other = subprocess.Popen([VM, "up", str(vm.disk), "--name", "b"], env=vm.environ, stderr=subprocess.DEVNULL)
    until(lambda: len(vm.qemus()) == 2)
    ports = {int(file.read_text()) for file in vm.cache.glob("**/port")}
    assert len(ports) == 2
    for tool in (*tools, other):
        tool.terminate()
        tool.wait(30)


def test_no_free_port(vm):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        line = vm.fails("up", str(vm.disk), SOCKREDIR_VM_PORTS=f"{port}-{port}")
    assert f"no free port in {port}-{port}" in line
    assert not vm.leftovers()


def test_no_mirror(vm):
    for verb in ("mirror", "build"):
        line = vm.fails(verb, "bookworm", code=os.EX_UNAVAILABLE, SOCKREDIR_VM_MIRROR="http://127.0.0.1:9/nothing")
        assert "no package mirror answers" in line
    assert [path for path in vm.cache.glob("sockredir-vm/images/*") if path.suffix != ".lock"] == []


def test_no_space(vm):
    vm.cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(vm.cache)], check=True)
    try:
        assert "no space" in vm.fails("build", "bookworm")
        assert "no space" in vm.fails("up", str(vm.disk))
        assert not vm.leftovers()
    finally:
        subprocess.run(["umount", str(vm.cache)], check=True)


def test_a_missing_tool_names_its_package(vm, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "readlink", "genisoimage", "ssh", "ssh-keygen", "qemu-img"):
        (tools / tool).symlink_to(shutil.which(tool))
    line = vm.fails("up", str(vm.disk), PATH=str(tools), PYTHON=sys.executable)
    assert "qemu-system-x86_64 not found: apt-get install qemu-system-x86" in line


def test_what_qemu_refuses(vm):
    assert "qemu of 'empty' ended: " in vm.fails("up", str(vm.disk), "--cpus", "9999")
    assert not vm.leftovers()


@pytest.mark.parametrize("image", ["woody", "/no/such/image", "file:///no/such/image"])
def test_images_that_are_not_there(vm, image):
    assert image.rpartition("/")[2] in vm.fails("up", image)


def test_a_kvm_that_hangs(tmp_path, monkeypatch):
    """The device is there, qemu never gets its guest to run: said within the limit, and emulation is taken."""
    monkeypatch.syspath_prepend(str(SHARED))
    from vmtool import accel

    real = shutil.which("qemu-system-x86_64")
    fake = tmp_path / "bin" / "qemu-system-x86_64"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\ncase "$*" in *"-accel kvm"*) exec sleep 60 ;; esac\nexec {real} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    monkeypatch.setattr(accel, "TRIAL_LIMIT_S", 3.0)
    (tmp_path / "kvm").touch()
    decision = accel.decide(tmp_path, {}, str(tmp_path / "kvm"))
    assert decision.accelerator == "tcg"
    assert "hangs" in decision.reason


def test_one_line_says_which_accelerator_this_host_has(vm):
    """Whatever its /dev/kvm is worth, and whether it has one."""
    told = vm("accelerator", SOCKREDIR_VM_ACCEL="")
    assert told.returncode == 0
    (line,) = told.stdout.splitlines()
    accelerator, _colon, reason = line.partition(": ")
    assert accelerator in ("kvm", "tcg")
    assert reason


def test_emulation_boots(monkeypatch):
    """What the trial boots does end qemu as expected: otherwise every verdict on KVM would be a refusal."""
    monkeypatch.syspath_prepend(str(SHARED))
    from vmtool import accel

    assert accel.try_boot("tcg").booted
