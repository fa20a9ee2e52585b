# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that make a bare Debian one of our machines: network, ssh key, quick boot, this host's apt settings."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Dict, Mapping, Optional

# ca-certificates adds what lies here to the trusted ones when it is installed.
LOCAL_CERTIFICATES = "/usr/local/share/ca-certificates"

# qemu's user-mode network is the same in every machine. On a busy host the device may come later than systemd waits.
NETWORK_UNIT = """[Unit]
Description=Address in qemu's user-mode network
DefaultDependencies=no
After=sys-subsystem-net-devices-eth0.device systemd-remount-fs.service
Wants=sys-subsystem-net-devices-eth0.device
Before=network.target network-online.target ssh.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
RemainAfterExit=yes
Restart=on-failure
RestartSec=1
ExecStart=ip link set eth0 up
ExecStart=ip address replace 10.0.2.15/24 dev eth0
ExecStart=ip route replace default via 10.0.2.2
ExecStart=sh -c 'echo nameserver 10.0.2.3 >/etc/resolv.conf'

[Install]
WantedBy=multi-user.target
"""

# Only what reaches the disk: a small initrd unpacks quickly under emulation.
INITRAMFS_HOOK = """#!/bin/sh
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk ext4
"""

FIXED: Dict[str, str] = {
    "/etc/fstab": "/dev/vda / ext4 defaults,noatime 0 1\n",
    "/etc/initramfs-tools/conf.d/vm": "MODULES=list\nCOMPRESS=zstd\n",
    "/etc/initramfs-tools/hooks/vm": INITRAMFS_HOOK,
    "/etc/systemd/system/vm-network.service": NETWORK_UNIT,
    # A disk that is thrown away needs no flushes.
    "/etc/dpkg/dpkg.cfg.d/vm": "force-unsafe-io\n",
    "/etc/apt/apt.conf.d/90vm": 'Acquire::Languages "none";\nAcquire::Retries "3";\n',
}

LINKS: Dict[str, str] = {
    "/etc/systemd/system/multi-user.target.wants/vm-network.service": "/etc/systemd/system/vm-network.service",
    # They would hold dpkg's lock when a test wants it.
    "/etc/systemd/system/apt-daily.timer": "/dev/null",
    "/etc/systemd/system/apt-daily-upgrade.timer": "/dev/null",
}


def all_files(public_key: str, environ: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """Path in the guest -> text."""
    files = {**FIXED, "/root/.ssh/authorized_keys": public_key + "\n"}
    proxies = apt_proxies(_apt_config(), os.environ if environ is None else environ)
    if proxies:
        files["/etc/apt/apt.conf.d/92vm-proxy"] = proxies
    for certificate in sorted(Path(LOCAL_CERTIFICATES).glob("**/*.crt")):
        text = certificate.read_text(encoding="ascii", errors="replace")
        files[f"{LOCAL_CERTIFICATES}/{certificate.name}"] = text
    return files


def apt_proxies(apt_config: str, environ: Mapping[str, str]) -> str:
    """The guest's apt settings for the proxies that this host uses, from `apt-config dump` or the environment.

    A proxy on this host's loopback is reached as 10.0.2.2 from inside.
    """
    lines = []
    for scheme in ("http", "https"):
        match = re.search(rf'^Acquire::{scheme}::Proxy "([^"]+)";$', apt_config, re.MULTILINE | re.IGNORECASE)
        proxy = match.group(1) if match else environ.get(f"{scheme}_proxy", "")
        if proxy:
            inside = re.sub(r"(//|@)(127\.0\.0\.1|localhost|\[::1\])(?=[:/]|$)", r"\g<1>10.0.2.2", proxy)
            lines.append(f'Acquire::{scheme}::Proxy "{inside}";\n')
    return "".join(lines)


def _apt_config() -> str:
    try:
        return subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def add_to_tar(tar: tarfile.TarFile, files: Mapping[str, str]) -> None:
    """Adds the files, and the links that every image has, owned by root."""
    for path, text in sorted(files.items()):
        entry = tarfile.TarInfo(path.lstrip("/"))
        content = text.encode()
        entry.size = len(content)
        entry.mode = 0o755 if text.startswith("#!") else 0o600 if "/.ssh/" in path else 0o644
        tar.addfile(entry, io.BytesIO(content))
    for path, target in sorted(LINKS.items()):
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type = tarfile.SYMTYPE
        entry.linkname = target
        tar.addfile(entry)


def cloud_init(name: str, public_key: str) -> Dict[str, str]:
    """The two files of a NoCloud seed for a cloud image."""
    user_data = f"""#cloud-config
disable_root: false
users:
  - name: root
    ssh_authorized_keys: ["{public_key}"]
"""
    return {"user-data": user_data, "meta-data": f"instance-id: {name}\nlocal-hostname: {name}\n"}
