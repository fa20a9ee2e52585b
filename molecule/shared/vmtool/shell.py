# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the tools that build and boot machines."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any, Sequence, Tuple

from .errors import VmError

PACKAGE_OF = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "genisoimage": "genisoimage",
    "fakeroot": "fakeroot",
    "curl": "curl",
}


def say(text: str) -> None:
    """A line of progress; stdout belongs to the guest's command."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


def need(*tools: str) -> None:
    """Raises VmError with every tool of these that is missing, and the packages that have them."""
    # mke2fs lives in a directory that is not always in a user's PATH.
    missing = [tool for tool in tools if find(tool) is None]
    if missing:
        packages = sorted({PACKAGE_OF[tool] for tool in missing})
        raise VmError(f"{', '.join(missing)} not found: apt-get install {' '.join(packages)}")


def find(tool: str) -> str | None:
    """Full path of a tool, looked for in the system's directories too."""
    return shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")


def captured(argv: Sequence[str], **options: Any) -> Tuple[int, str]:
    """Runs a command; gives its exit code and all that it said."""
    command = [find(argv[0]) or argv[0], *argv[1:]]
    options = {"text": True, "errors": "replace", **options}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)
    return done.returncode, done.stdout


def run(argv: Sequence[str], failure: str, cure: str = "", **options: Any) -> str:
    """Runs a command and gives its output; raises VmError with `failure`, the command's last line and the cure."""
    code, output = captured(argv, **options)
    if code:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {code}"
        raise VmError(f"{failure}: {reason}" + (f"; {cure}" if cure else ""), "\n".join(lines[-30:]))
    return output
