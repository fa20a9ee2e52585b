# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Molecule, image builds, ssh and qemu killed in the middle: the next run starts clean. Two checkouts at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.collection import ROOT
from support.machines import VM, processes, until

MOLECULE = Path(sys.executable).with_name("molecule")


class Checkout:
    """A copy of the checkout whose default scenario has machines that never come up."""

    def __init__(self, place: Path, vm) -> None:
        self.vm = vm
        self.place = place
        for part in ("molecule", ".config/molecule"):
            shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
        # Molecule looks for its configuration where the repository begins.
        subprocess.run(["git", "init", "-q", str(place)], check=True)
        self.environ = {
            **vm.environ,
            "PATH": f"{MOLECULE.parent}:{os.environ['PATH']}",
            "SOCKREDIR_VM_DEBIAN12": str(vm.disk),
            "SOCKREDIR_VM_DEBIAN13": str(vm.disk),
            "MOLECULE_EPHEMERAL_DIRECTORY": str(place / ".cache/molecule/default"),
            "LC_ALL": "C.UTF-8",
        }

    def start(self, verb: str) -> subprocess.Popen:
        """Starts a verb of molecule in a process group of its own."""
        return subprocess.Popen(
            [str(MOLECULE), verb],
            cwd=self.place,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def boot(self) -> subprocess.Popen:
        """Starts `molecule create` and waits for its first qemu."""
        molecule = self.start("create")
        until(lambda: self.running() or molecule.poll() is not None, 90)
        assert molecule.poll() is None, molecule.stdout.read()
        return molecule

    def destroy(self) -> None:
        molecule = self.start("destroy")
        said, _nothing = molecule.communicate(timeout=90)
        assert molecule.returncode == 0, said

    def running(self) -> int:
        """How many machines of this checkout run."""
        return self.vm.running(str(self.place / "molecule/shared/vm"))


@pytest.fixture
def checkout(vm, tmp_path):
    """Makes checkouts; molecule must be installed beside this Python."""
    if not MOLECULE.exists():
        pytest.skip(f"no molecule beside {sys.executable}")
    return lambda name: Checkout(tmp_path / name, vm)


def test_molecule_killed_in_the_middle(vm, checkout):
    """What it started goes on without it. The next run, which begins with destroy, ends that and starts again."""
    own = checkout("own")
    killed = own.boot()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert vm.qemus()
    own.destroy()
    assert not vm.qemus()
    assert not vm.leftovers()

    again = own.boot()
    own.destroy()
    assert not vm.qemus()
    assert again.wait(60) != 0
    assert "143" in again.stdout.read()
    assert not vm.leftovers()


def test_two_checkouts_at_once(vm, checkout):
    """They have the same name, as two clones of one repository have."""
    one, other = checkout("a/clone"), checkout("b/clone")
    runs = [one.boot(), other.boot()]
    assert len(vm.qemus()) == 2
    one.destroy()
    assert one.running() == 0
    assert other.running() == 1
    other.destroy()
    for run in runs:
        run.wait(60)
    assert not vm.qemus()
    assert not vm.leftovers()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_killed_in_the_middle(vm, sign):
    """The mirror takes the question and never answers, so the build stands in the middle for as long as it takes."""
    with silent_server() as (mirror, asked):
        build = subprocess.Popen(
            [VM, "build", "bookworm"],
            env={**vm.environ, "SOCKREDIR_VM_MIRROR": mirror},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert asked.wait(60)
        build.send_signal(sign)
        build.wait(30)
    until(lambda: not processes(vm.cache, "mmdebstrap"), 60)
    if sign == signal.SIGKILL:
        # The killed process could not clean up; the next build of the same image does.
        vm.fails("build", "bookworm", code=os.EX_UNAVAILABLE, SOCKREDIR_VM_MIRROR=mirror)
    assert [path.name for path in vm.cache.glob("sockredir-vm/images/*") if path.suffix != ".lock"] == []
    assert str(vm.cache) not in Path("/proc/self/mountinfo").read_text()


class silent_server:
    """Accepts connections and says nothing. As a context: its URL, and an event that is set once it was asked."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.asked = threading.Event()
        self.accepted = []
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/debian", self.asked

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            self.accepted.append(connection)
            if connection.recv(1 << 16):
                self.asked.set()

    def __exit__(self, *_error) -> None:
        # Wakes accept, which close alone does not.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.accepted:
            connection.close()


def test_ssh_and_qemu_killed_under_a_command(vm):
    """A machine that really boots, of the user's own images: built if it is missing."""
    vm.share_image("bookworm", "iperf3")
    started = subprocess.run(
        [VM, "up", "bookworm", "--with", "iperf3", "--name", "a"],
        env=vm.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=1200,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    for victim in ("ssh", "qemu-system"):
        command = subprocess.Popen(
            [VM, "ssh", "a", "--", "echo there; sleep 600"], env=vm.environ, stdout=subprocess.PIPE
        )
        assert command.stdout.readline() == b"there\n"
        for pid in processes(vm.cache, victim):
            os.kill(pid, signal.SIGKILL)
        assert command.wait(60) not in (0, 1)
    assert vm("list").stdout == "adhoc/a: not running\n"
    assert vm("down").returncode == 0
    assert not vm.leftovers()
