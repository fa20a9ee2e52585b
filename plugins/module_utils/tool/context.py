# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers that the verbs of ``sockredirctl`` share."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Iterable

from ..errors import SockredirError
from ..operation.restore import not_enabled
from ..state import manifest

OK, DIFFERS, USAGE, FAILED, NOT_ENABLED = 0, 1, 2, 3, 4


def require_root(verb: str) -> None:
    """:raises SockredirError: this process is another user's: the state and the pins are root's alone."""
    if os.geteuid() != 0:
        raise SockredirError(f"{verb} needs root", "run it as root, or with sudo")


def enabled(state_dir: str) -> manifest.Manifest:
    """What is known of this host, also if its manifest was changed by hand.

    :raises SockredirError: nothing is.
    """
    document = manifest.known(state_dir)
    if document is None:
        damage = manifest.damage(state_dir)
        raise SockredirError(damage) if damage else not_enabled(state_dir)
    return document


def accelerated(document: manifest.Manifest) -> str:
    """The cgroup whose sockets are redirected.

    :raises SockredirError: none is.
    """
    named = [document.get("cgroup")] + [entry.get("cgroup") for entry in document["attachments"]]
    for cgroup in named:
        if cgroup:
            return cgroup
    raise SockredirError("no cgroup is accelerated on this host", "run the role")


def say(line: str) -> None:
    """One line for people, beside the output."""
    sys.stderr.write(f"sockredirctl: {line}\n")


def show(lines: Iterable[str]) -> None:
    """The output for people."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def show_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


def size(count: int) -> str:
    """Bytes as people read them: ``1.5 MiB``."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
