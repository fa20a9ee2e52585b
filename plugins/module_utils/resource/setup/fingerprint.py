# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files as the manifest knows them. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from ...host import files
from ...host.files import File


def file_kind(path: str, unit: Mapping[str, Any]) -> str:
    """What it is called if a file is not as it should be.

    :param unit: the manifest's section on systemd.
    """
    units = (unit.get("path"), unit.get("link"), *unit.get("timer", ()))
    return "unit_disabled" if path in units else "file_changed"


def fingerprint(found: File) -> str:
    """A file in the manifest's words."""
    return f"-> {found.text}" if found.link else files.digest(found.text)
