# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which distribution this is and what its packages are called (os-release(5))."""

from __future__ import annotations

import os
import shlex
from typing import Dict, List, NamedTuple, Tuple

_FILES = ("/etc/os-release", "/usr/lib/os-release")
_FAMILIES = {
    "debian": ("debian", "ubuntu"),
    "redhat": ("fedora", "rhel", "centos", "rocky", "almalinux", "ol", "amzn"),
    "suse": ("suse", "opensuse", "sles", "opensuse-leap", "opensuse-tumbleweed"),
}
_INSTALL = {"debian": "apt-get install", "redhat": "dnf install", "suse": "zypper install"}

#: What to install, by what it is for and by family; ``{kernel}`` is the release of the running kernel. The one place
#: where packages are named: the role installs these, and the cures of prerequisites and errors name them.
PACKAGES: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "libbpf": {"debian": ("libbpf1",), "redhat": ("libbpf",), "suse": ("libbpf1",)},
    "clang": {
        "debian": ("clang", "libbpf-dev", "linux-libc-dev"),
        "redhat": ("clang", "libbpf-devel", "kernel-headers"),
        "suse": ("clang", "libbpf-devel", "linux-glibc-devel"),
    },
    "bcc": {
        "debian": ("python3-bpfcc", "linux-headers-{kernel}"),
        "redhat": ("python3-bcc", "kernel-devel-{kernel}"),
        "suse": ("python3-bcc", "kernel-default-devel"),
    },
}


class Distribution(NamedTuple):
    """``family`` is ``debian``, ``redhat``, ``suse``, or empty if it is none of them."""

    id: str
    version: str
    name: str
    family: str

    @property
    def package_manager(self) -> str:
        """``apt``, ``dnf``, ``zypper``, or empty."""
        return {"debian": "apt", "redhat": "dnf", "suse": "zypper"}.get(self.family, "")


def read() -> Distribution:
    """This host's distribution; all fields empty if it has no os-release."""
    for path in _FILES:
        try:
            with open(path, encoding="utf-8", errors="replace") as text:
                return parse(text.read())
        except OSError:
            continue
    return parse("")


def parse(text: str) -> Distribution:
    """The distribution that the text of an os-release file names."""
    fields = dict(_assignment(line) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    names = [fields.get("ID", "").lower()] + fields.get("ID_LIKE", "").lower().split()
    family = next((family for name in names for family, members in _FAMILIES.items() if name in members), "")
    return Distribution(fields.get("ID", ""), fields.get("VERSION_ID", ""), fields.get("PRETTY_NAME", ""), family)


def _assignment(line: str) -> tuple:
    name, _equals, value = line.partition("=")
    try:
        return name.strip(), "".join(shlex.split(value)[:1])
    except ValueError:  # quotes that do not end
        return name.strip(), value.strip("\"' ")


def packages(what: str, family: str, kernel: str) -> List[str]:
    """The packages for what ``PACKAGES`` lists; empty if nobody knows their names in this family.

    :param kernel: str, the release of the running kernel.
    """
    return [name.format(kernel=kernel) for name in PACKAGES[what].get(family, ())]


def install(what: str, distribution: Distribution) -> str:
    """The command that installs what ``PACKAGES`` lists, or all families' names if this one is unknown."""
    kernel = os.uname().release
    if distribution.family in PACKAGES[what]:
        return f"{_INSTALL[distribution.family]} {' '.join(packages(what, distribution.family, kernel))}"
    return "install " + ", ".join(f"{' '.join(packages(what, one, kernel))} ({one})" for one in PACKAGES[what])
