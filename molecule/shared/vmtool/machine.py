# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One virtual machine: start, wait for ssh, run commands in it, stop.

All that a machine has on disk is in its own directory: the overlay over the cached image, qemu's pid file, the ssh
port, the serial log.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Dict, List, NoReturn, Optional, Sequence

from . import accel, guest_files
from .errors import VmError
from .image import Image, need_space, ssh_key
from .ports import free_ports, port_range
from .process import Background
from .shell import find, need, run, say

SPACE_TO_RUN = 2 << 30
# Long enough for emulation on a busy host; a machine that answers is used at once.
BOOT_LIMIT_S = 900
# qemu takes a connection before the guest has a network; ssh may then wait for ever.
KNOCK_LIMIT_S = 120
SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
    "IdentitiesOnly=yes",
    "ControlPath=none",
    # Cheap under emulation.
    "KexAlgorithms=curve25519-sha256",
    # qemu accepts the connection long before sshd answers.
    "ConnectTimeout=60",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=8",
)
PORT_TAKEN = "Could not set up host forwarding rule"


class PortTaken(VmError):
    """Another process has got the port between our look and qemu's."""


@dataclass
class Machine:
    """A machine by its directory; `cache` is the user's cache directory (ssh key, accelerator, logs)."""

    directory: Path
    cache: Path
    memory_mib: int = 1024
    cpus: int = 2
    tied_to_us: bool = field(default=False)

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def group(self) -> str:
        return self.directory.parent.name

    @property
    def serial_log(self) -> Path:
        return self.directory / "serial.log"

    @property
    def qemu_log(self) -> Path:
        return self.directory / "qemu.log"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.qcow2"

    @property
    def seed(self) -> Path:
        return self.directory / "seed.iso"

    @property
    def port(self) -> int:
        """The loopback port of its sshd; raises VmError where the machine was never started."""
        try:
            return int((self.directory / "port").read_text(encoding="ascii"))
        except (OSError, ValueError):
            raise VmError(f"no machine {self.name!r} in {self.directory.parent}: start it first") from None

    @property
    def qemu(self) -> Background:
        return Background(self.directory / "qemu.pid")

    def start(self, image: Image) -> None:
        """Boots the machine and waits until its sshd lets us in; on failure nothing of it stays but the serial log."""
        need("qemu-system-x86_64", "qemu-img", "ssh", *([] if image.kernel else ["genisoimage"]))
        if self.qemu.pid():
            raise VmError(f"machine {self.name!r} runs already (pid {self.qemu.pid()}): destroy it first")
        self.remove_files()
        try:
            need_space(self.directory, SPACE_TO_RUN)
            self._make_overlay(image)
            self._boot(image)
        except BaseException:
            self.stop()
            raise

    def stop(self, keep_log: bool = True) -> None:
        """Ends this machine's qemu, and only that, and removes its files; the serial log may be kept."""
        if not self.qemu.end():
            raise VmError(f"qemu of {self.name!r} (pid {self.qemu.pid()}) does not end, not even by force")
        if keep_log and self.serial_log.exists():
            self.kept_log.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(str(self.serial_log), str(self.kept_log))
        self.remove_files()

    @property
    def kept_log(self) -> Path:
        """Where the serial log of the last run is kept."""
        relative = self.directory.relative_to(self.cache / "run")
        return self.cache / "logs" / relative.with_name(f"{relative.name}.log")

    def remove_files(self) -> None:
        """Removes the machine's directory, and its group's when that is empty then."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.directory.parent.rmdir()

    def address(self) -> Dict[str, object]:
        """How ssh reaches it, in the words of molecule's instance configuration."""
        return {"address": "127.0.0.1", "port": self.port, "user": "root", "identity_file": str(ssh_key(self.cache))}

    def ssh_command(self, *command: str) -> List[str]:
        """The ssh call for a command in the machine as root; no ssh configuration of the user's has a say in it."""
        ssh = [find("ssh") or "ssh", "-F", "none", "-i", str(ssh_key(self.cache)), "-p", str(self.port)]
        ssh += [part for option in SSH_OPTIONS for part in ("-o", option)]
        return [*ssh, "root@127.0.0.1", *command]

    def call(self, command: Sequence[str], stdin: Optional[IO[bytes]] = None) -> int:
        """Runs a shell command line in the machine on our standard streams and gives its exit code."""
        return subprocess.run(self.ssh_command(*command), stdin=stdin, check=False).returncode

    def copy_in(self, source: Path, target: str) -> None:
        """Copies a file, or a directory's content, to `target` in the machine."""
        if not source.exists():
            raise VmError(f"cannot copy {source}: no such file or directory")
        place = shlex.quote(target)
        if source.is_dir():
            pack = ["tar", "-C", str(source), "--exclude=.git", "-cf", "-", "."]
            unpack = f"mkdir -p {place} && tar -C {place} --no-same-owner -xf -"
        else:
            pack = ["cat", str(source)]
            mode = f"{source.stat().st_mode & 0o777:o}"
            unpack = f'mkdir -p "$(dirname {place})" && cat > {place} && chmod {mode} {place}'
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packer:
            code = self.call([unpack], stdin=packer.stdout)
        if code or packer.returncode:
            raise VmError(f"cannot copy {source} to {target} in {self.name!r}")

    def _make_overlay(self, image: Image) -> None:
        base = ["-F", image.disk_format, "-b", str(image.disk)]
        run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *base, str(self.disk)],
            f"cannot make an overlay over {image.disk}",
        )
        if not image.kernel:
            self._make_seed()

    def _make_seed(self) -> None:
        """The cloud-init seed; the NoCloud data source finds it by its label."""
        public = ssh_key(self.cache).with_suffix(".pub").read_text(encoding="ascii").strip()
        with tempfile.TemporaryDirectory(dir=self.directory) as place:
            for name, text in guest_files.cloud_init(self.name, public).items():
                (Path(place) / name).write_text(text, encoding="utf-8")
            command = [
                "genisoimage",
                "-quiet",
                "-volid",
                "cidata",
                "-joliet",
                "-rock",
                "-output",
                str(self.seed),
                place,
            ]
            run(command, "cannot make the cloud-init seed")

    def _boot(self, image: Image) -> None:
        """Boots on the first port that qemu really gets: another process may be quicker."""
        low, high = port_range(os.environ)
        accelerator = accel.decide(self.cache).accelerator
        for port in free_ports(str(self.directory), low, high):
            (self.directory / "port").write_text(f"{port}\n", encoding="ascii")
            say(f"{self.name}: booting with {accelerator}, ssh at 127.0.0.1:{port}")
            process = self.qemu.spawn(self.qemu_command(image, accelerator, port), self.qemu_log, self.tied_to_us)
            with contextlib.suppress(PortTaken):
                self._wait_for_ssh(process)
                if not image.kernel:
                    self._wait_for_cloud_init()
                return

    def qemu_command(self, image: Image, accelerator: str, port: int) -> List[str]:
        """The whole command line of qemu."""
        command = [
            find("qemu-system-x86_64") or "",
            "-name",
            f"sockredir-{self.name}",
            "-machine",
            "q35,sata=off,smbus=off,usb=off",
        ]
        command += [*accel.arguments(accelerator), "-smp", str(self.cpus), "-m", str(self.memory_mib)]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci"]
        command += ["-serial", f"file:{self.serial_log}"]
        command += ["-drive", f"file={self.disk},format=qcow2,if=virtio,cache=unsafe,discard=unmap"]
        command += ["-netdev", f"user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22"]
        command += ["-device", "virtio-net-pci,netdev=net0,romfile="]
        if image.kernel:
            return [*command, "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", self.kernel_line()]
        return [*command, "-drive", f"file={self.seed},format=raw,if=virtio,readonly=on"]

    def kernel_line(self) -> str:
        """The kernel's arguments; they give each machine its own name and machine id."""
        machine_id = hashlib.sha256(str(self.directory).encode()).hexdigest()[:32]
        names = f"systemd.hostname={self.name} systemd.machine_id={machine_id}"
        # A serial console is slow, and mitigations protect nothing here.
        quick = "quiet loglevel=4 systemd.show_status=1 mitigations=off"
        # Emulated by qemu 7.2, a processor may execute for ever a breakpoint that the kernel has long overwritten: some
        # 70 s of that, and it boots again.
        stuck = "watchdog_thresh=20 softlockup_panic=1 panic=10"
        return f"root=/dev/vda rw console=ttyS0 net.ifnames=0 {quick} {stuck} {names}"

    def _wait_for_ssh(self, process: subprocess.Popen) -> None:
        started = time.monotonic()
        while time.monotonic() - started < BOOT_LIMIT_S:
            if process.poll() is not None:
                self._explain_end()
            if self._lets_in():
                say(f"{self.name}: up after {time.monotonic() - started:.0f} s")
                return
            time.sleep(1)
        cure = f"read {self.kept_log}, or set SOCKREDIR_VM_ACCEL=tcg where KVM is at fault"
        raise VmError(f"no ssh on {self.name!r} after {BOOT_LIMIT_S} s: {cure}", _last_lines(self.serial_log))

    def _wait_for_cloud_init(self) -> None:
        """It may still be busy with packages when sshd is up; what it thinks of the outcome does not matter here."""
        wait = self.ssh_command("cloud-init status --wait")
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(wait, stdin=subprocess.DEVNULL, capture_output=True, timeout=BOOT_LIMIT_S, check=False)

    def _explain_end(self) -> NoReturn:
        said = _last_lines(self.qemu_log).splitlines()
        reason = said[-1] if said else "it was killed"
        if PORT_TAKEN in reason:
            raise PortTaken(f"port {self.port} was taken: {reason}")
        raise VmError(f"qemu of {self.name!r} ended: {reason}", _last_lines(self.serial_log))

    def _lets_in(self) -> bool:
        """A real login: sshd shuts out whoever connects again and again and leaves without one."""
        knock = self.ssh_command("true")
        try:
            done = subprocess.run(
                knock, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=KNOCK_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def _last_lines(log: Path) -> str:
    """The end of a log, for a person who wonders."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-30:])
    except FileNotFoundError:
        return ""
