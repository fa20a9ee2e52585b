# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian suites that images are built of, and the identity of an image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Dict, List, Sequence

from .errors import VmError

# A change of how images are built makes all cached ones stale: count this up then.
BUILDER_VERSION = 1

# What any Debian server has: kernel, init, network tools, sshd, and Python with apt's bindings for Ansible.
BASE_PACKAGES = (
    "ca-certificates",
    "dbus",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-image-amd64",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "systemd-sysv",
    "udev",
    "zstd",
)


@dataclass(frozen=True)
class Suite:
    """A Debian release as input of an image."""

    name: str
    kernel: str
    main_archive_only: bool = False
    ignore_validity_date: bool = False


SUITES: Dict[str, Suite] = {
    suite.name: suite
    for suite in (
        # Its security and updates archives are no longer served everywhere.
        Suite("bullseye", "5.10", main_archive_only=True),
        Suite("bookworm", "6.1"),
        Suite("trixie", "6.12"),
        # A mirror's copy of its Release file can be past its date.
        Suite("sid", "newest", ignore_validity_date=True),
    )
}


def suite_named(name: str) -> Suite:
    """The suite of this name; raises VmError with the known ones."""
    if name not in SUITES:
        raise VmError(f"unknown suite {name!r}: choose one of {', '.join(SUITES)}, or give a cloud image")
    return SUITES[name]


@dataclass(frozen=True)
class Recipe:
    """All that decides an image's content.

    Packages are those besides the base; mirrors as mmdebstrap takes them (none: its own default); `files` maps a
    path in the guest to its text.
    """

    suite: Suite
    packages: Sequence[str] = ()
    mirrors: Sequence[str] = ()
    files: Dict[str, str] = field(default_factory=dict)
    version: int = BUILDER_VERSION

    @property
    def all_packages(self) -> List[str]:
        """Base and extra packages, each once, in a fixed order."""
        return sorted({*BASE_PACKAGES, *self.packages})

    @property
    def key(self) -> str:
        """Name of the image in the cache: its suite and a digest of the content's decisions."""
        content = {**asdict(self), "packages": self.all_packages, "mirrors": list(self.mirrors)}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{self.suite.name}-{digest[:16]}"
