# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is, and what its manifest says."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, Dict, List, Optional

from .. import distribution
from ..host import mounts
from ..resource.snapshot import Snapshot
from ..state import manifest


def about(snapshot: Snapshot) -> Dict[str, Any]:
    """Kernel, distribution, boot, and where the filesystems that matter are mounted."""
    system = os.uname()
    release = distribution.read()
    mounted = _mounts(snapshot)
    cgroup2 = mounts.cgroup2(mounted)
    return {
        "kernel": system.release,
        "architecture": system.machine,
        "distribution": release.name or release.id,
        "distribution_id": release.id,
        "distribution_version": release.version,
        "family": release.family,
        "package_manager": release.package_manager,
        "boot_id": _boot_id(),
        "root": os.geteuid() == 0,
        "systemd": os.path.isdir("/run/systemd/system"),
        "cgroup2": cgroup2.point if cgroup2 else None,
        "bpffs": [_bpffs(mount, mounted) for mount in mounts.of_type(mounts.BPFFS, mounted)],
    }


def _mounts(snapshot: Snapshot) -> List[mounts.Mount]:
    try:
        return snapshot.mounts
    except OSError:
        return []


def _bpffs(mount: mounts.Mount, mounted: List[mounts.Mount]) -> Dict[str, Any]:
    # One that cannot be reached is stacked over or hidden: so are the pins on it.
    return {"mount_point": mount.point, "reachable": mounts.visible(mount, mounted)}


def _boot_id() -> Optional[str]:
    try:
        return manifest.boot_id()
    except OSError:
        return None


def manifest_summary(document: Optional[manifest.Manifest], damage: Optional[str]) -> Optional[Dict[str, Any]]:
    """What the manifest says, without what the other parts show; None if there is none."""
    if document is None:
        return {"damage": damage} if damage else None
    return {
        "damage": damage,
        "committed": document["committed"],
        "this_boot": document.get("boot_id") == _boot_id(),
        "pin_dir": document["pin_dir"],
        "settings": document["settings"],
        "calibration": document.get("calibration"),
        "wanted": document["wanted"],
        "programs": {name: _program(entry) for name, entry in document["programs"].items()},
        "attachments": document["attachments"],
        "files": document["files"],
    }


def _program(entry: Dict[str, Any]) -> Dict[str, Any]:
    keys = ("digest", "source_digest", "object_sha256", "compiler", "config", "max_entries", "pins", "program_ids")
    return {key: entry.get(key) for key in keys}


def directory(path: str) -> Optional[Dict[str, Any]]:
    """Whose a directory is, ``mode`` as ``0700``; None if there is none.

    :raises OSError: it may not be looked at.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return {"uid": found.st_uid, "gid": found.st_gid, "mode": f"{stat.S_IMODE(found.st_mode):04o}"}


def sources(state_dir: str) -> Dict[str, str]:
    """SHA-256 of what the programs are made from, C source or object, by file name.

    :raises OSError: it may not be read.
    """
    directory = os.path.join(state_dir, "src")
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return {}
    return {name: _sha256(os.path.join(directory, name)) for name in names}


def _sha256(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def accelerated(document: Optional[manifest.Manifest]) -> Optional[str]:
    """The cgroup whose sockets are redirected, as the manifest has it."""
    if document is None:
        return None
    recorded = [entry.get("cgroup") for entry in document["attachments"]]
    return next((cgroup for cgroup in [document.get("cgroup")] + recorded if cgroup), None)
