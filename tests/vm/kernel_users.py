# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kernel_users.sh runs in a virtual machine, as root: ``kernel_users.py OBJECT``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, "tests/conformance")

from conform import redirection

NVMET = Path("/sys/kernel/config/nvmet")
TARGET = Path("/sys/kernel/config/target")
ISCSI = TARGET / "iscsi" / "iqn.2026-01.org.example:t"
DISK = Path("/root/disk")


def shell(command: str) -> str:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")


def nvme() -> bool:
    """Write to a disk over NVMe and read it again: the same?"""
    DISK.write_bytes(bytes(8 << 20))
    name = shell(f"losetup -f --show {DISK}")
    subsystem, port = NVMET / "subsystems" / "t", NVMET / "ports" / "1"
    disk = subsystem / "namespaces" / "1"
    disk.mkdir(parents=True)
    write(subsystem / "attr_allow_any_host", "1")
    write(disk / "device_path", name)
    write(disk / "enable", "1")
    port.mkdir()
    for what, value in (("trtype", "tcp"), ("traddr", "127.0.0.1"), ("trsvcid", "4420"), ("adrfam", "ipv4")):
        write(port / f"addr_{what}", value)
    (port / "subsystems" / "t").symlink_to(subsystem)
    write(Path("/dev/nvme-fabrics"), "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=t")
    shell("for n in $(seq 100); do [ -b /dev/nvme0n1 ] && exit; sleep 0.2; done; exit 1")
    shell("head -c 4M /dev/urandom >/root/bytes; dd if=/root/bytes of=/dev/nvme0n1 oflag=direct bs=1M status=none")
    same = shell("dd if=/dev/nvme0n1 iflag=direct bs=1M count=4 status=none | cmp - /root/bytes && echo same")
    for controller in Path("/sys/class/nvme").iterdir():
        write(controller / "delete_controller", "1")
    (port / "subsystems" / "t").unlink()
    write(disk / "enable", "0")
    for directory in (port, disk, subsystem):
        directory.rmdir()
    shell(f"losetup -d {name}")
    return same == "same"


def iscsi() -> str:
    """What a program asks a target of the kernel."""
    group, store = ISCSI / "tpgt_1", TARGET / "core" / "rd_mcp_0" / "r"
    store.mkdir(parents=True)
    write(store / "control", "rd_pages=2048")
    write(store / "enable", "1")
    (group / "lun" / "lun_0").mkdir(parents=True)
    (group / "lun" / "lun_0" / "r").symlink_to(store)
    for what, value in (("authentication", "0"), ("generate_node_acls", "1"), ("demo_mode_write_protect", "0")):
        write(group / "attrib" / what, value)
    (group / "np" / "127.0.0.1:3260").mkdir(parents=True)
    write(group / "enable", "1")
    said = shell("timeout 60 iscsi-inq iscsi://127.0.0.1/iqn.2026-01.org.example:t/0 | head -n 3")
    write(group / "enable", "0")
    (group / "np" / "127.0.0.1:3260").rmdir()
    (group / "lun" / "lun_0" / "r").unlink()
    for directory in (group / "lun" / "lun_0", group, ISCSI):
        directory.rmdir()
    store.rmdir()
    return said


def used_in(cgroup: str) -> tuple:
    write(Path(cgroup, "cgroup.procs"), str(os.getpid()))
    try:
        return nvme(), iscsi()
    finally:
        write(Path(redirection.cgroup2_mount(), "cgroup.procs"), str(os.getpid()))


def main() -> None:
    with redirection.own(Path(sys.argv[1]).read_bytes()) as (plain, loaded):
        expected = used_in(plain)
        assert expected[0] and "DIRECT_ACCESS" in expected[1], expected
        found = used_in(loaded.cgroup)
        counted = {name: count for name, count in loaded.maps.counters().items() if count}
        print(found, counted)
        assert found == expected, expected
        assert counted["skip_kind"] >= 5, "of NVMe both ends of a connection or more, of iSCSI the target's"
        assert loaded.maps.entries() == 0
    assert "sock_map" not in shell("dmesg")
    print("passed")


if __name__ == "__main__":
    main()
