# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides between KVM and software emulation by a trial boot.

`/dev/kvm` may exist and still be of no use: in nested set-ups qemu aborts on it, or the guest hangs or crawls.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Mapping, Optional

from .errors import VmError
from .shell import find, need, say

KVM_DEVICE = "/dev/kvm"
TRIAL_LIMIT_S = 10.0
# A KVM guest that does the same work this much later than an emulated one is of no use.
SLACK_S = 1.0
# What the boot sector writes to the exit device; qemu then exits with 2 * value + 1.
EXIT_VALUE = 0x10
TRIAL_EXIT_CODE = 2 * EXIT_VALUE + 1

# mov dx, 0xf4; mov al, EXIT_VALUE; out dx, al; hlt; jmp to the hlt
BOOT_SECTOR = bytes([0xBA, 0xF4, 0x00, 0xB0, EXIT_VALUE, 0xEE, 0xF4, 0xEB, 0xFD]).ljust(510, b"\0") + b"\x55\xaa"
# Of smaller disks the firmware finds no geometry.
DISK_SIZE = 1 << 20


@dataclass(frozen=True)
class Trial:
    """Outcome of one trial boot; `exit_code` is None if it had to be ended."""

    exit_code: Optional[int]
    seconds: float

    @property
    def booted(self) -> bool:
        return self.exit_code == TRIAL_EXIT_CODE


@dataclass(frozen=True)
class Decision:
    """The accelerator (`kvm` or `tcg`) and why."""

    accelerator: str
    reason: str


def arguments(accelerator: str) -> list:
    """qemu's options for this accelerator, the same in the trial and in the machines."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # The plainest processor: for each feature of a richer one the guest loads a module at boot, which takes its time.
    # Translated code would grow to 1 GiB, which is more than the machine itself has.
    return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64"]


def try_boot(accelerator: str) -> Trial:
    """Boots a machine whose boot sector ends it at once; raises VmError if there is no qemu."""
    need("qemu-system-x86_64")
    with tempfile.NamedTemporaryFile(prefix="vm-trial-") as disk:
        disk.write(BOOT_SECTOR)
        disk.truncate(DISK_SIZE)
        disk.flush()
        command = [find("qemu-system-x86_64"), "-machine", "q35", *arguments(accelerator), "-smp", "2", "-m", "64"]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        command += ["-drive", f"file={disk.name},format=raw,if=none,id=disk,snapshot=on"]
        command += ["-device", "ide-hd,drive=disk"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        started = time.monotonic()
        try:
            code: Optional[int] = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_LIMIT_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        return Trial(code, time.monotonic() - started)


def judge(kvm: Trial, tcg: Trial) -> Decision:
    """What the two trial boots say."""
    if kvm.exit_code is None:
        return Decision("tcg", f"a guest on {KVM_DEVICE} hangs (over {TRIAL_LIMIT_S:.0f} s)")
    if not kvm.booted:
        return Decision("tcg", f"qemu fails on {KVM_DEVICE} (exit code {kvm.exit_code})")
    if tcg.booted and kvm.seconds > tcg.seconds + SLACK_S:
        times = f"{kvm.seconds:.1f} s against {tcg.seconds:.1f} s"
        return Decision("tcg", f"a guest on {KVM_DEVICE} is slower than an emulated one ({times})")
    return Decision("kvm", f"trial boot took {kvm.seconds:.1f} s")


def decide(
    cache: Path,
    environ: Optional[Mapping[str, str]] = None,
    device: str = KVM_DEVICE,
    trial: Callable[[str], Trial] = try_boot,
) -> Decision:
    """The accelerator for this host; the trial's outcome is kept until the host reboots or qemu changes."""
    wanted = (os.environ if environ is None else environ).get("SOCKREDIR_VM_ACCEL", "")
    if wanted:
        if wanted not in ("kvm", "tcg"):
            raise VmError(f"SOCKREDIR_VM_ACCEL={wanted!r}: write kvm or tcg")
        return Decision(wanted, "SOCKREDIR_VM_ACCEL says so")
    if not os.path.exists(device):
        return Decision("tcg", f"there is no {device}")
    if not os.access(device, os.R_OK | os.W_OK):
        return Decision("tcg", f"no permission to use {device}: join the group that owns it")
    return _remembered(cache / "accelerator.json", lambda: judge(trial("kvm"), trial("tcg")))


def _remembered(file: Path, make: Callable[[], Decision]) -> Decision:
    valid_for = _host_identity()
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["valid_for"] == valid_for:
            return Decision(kept["accelerator"], kept["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    decision = make()
    say(f"accelerator {decision.accelerator}: {decision.reason}")
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"valid_for": valid_for, **asdict(decision)}), encoding="utf-8")
    fresh.replace(file)
    return decision


def _host_identity() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    qemu = os.stat(find("qemu-system-x86_64") or "/")
    return f"{boot}/{qemu.st_mtime_ns}/{qemu.st_size}"
