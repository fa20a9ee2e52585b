# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cgroups that programs run in, by their ids, and what people call them: the unit or the container."""

from __future__ import annotations

import os
import re
from typing import Dict, Optional

_CONTAINER = re.compile(r"(?:^|[-/:])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_UNIT = re.compile(r"([^/]+\.(?:service|scope))(?:/|$)")
_SHOWN = 12  # as container engines show their ids


def by_id(root: str) -> Dict[int, str]:
    """Path below the mount of each cgroup, by its id.

    :param root: str, where cgroup2 is mounted, or a cgroup: then only those inside of it.
    """
    found = {}
    for directory, _names, _files in os.walk(root):
        try:
            found[os.stat(directory).st_ino] = directory
        except OSError:  # gone meanwhile
            continue
    return found


def unit(path: str) -> Optional[str]:
    """``nginx.service``, ``container 0123456789ab``, or None if the path names neither.

    :param path: str, of the cgroup.
    """
    container = _CONTAINER.search(path)
    if container:
        return f"container {container[1][:_SHOWN]}"
    units = _UNIT.findall(path)
    return units[-1] if units else None
