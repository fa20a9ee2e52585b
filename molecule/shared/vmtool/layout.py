# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where images and the state of running machines are kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Mapping, Optional

APPLICATION = "sockredir-vm"


def cache_dir(environ: Optional[Mapping[str, str]] = None) -> Path:
    """The user's cache directory (XDG Base Directory specification: an empty or relative value counts as unset)."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(environ.get("HOME", "/"), ".cache")
    return Path(base) / APPLICATION


def checkout_id(project: Path) -> str:
    """Tells two checkouts on one machine apart, also when their directories have the same name."""
    return hashlib.sha256(str(project).encode()).hexdigest()[:12]


def state_dir(project: Path, group: str, environ: Optional[Mapping[str, str]] = None) -> Path:
    """State of the machines of one group (a molecule scenario, or `adhoc`) of one checkout.

    `molecule/shared/inventory/group_vars/all.yml` follows the same rule.
    """
    return cache_dir(environ) / "run" / checkout_id(project) / group
