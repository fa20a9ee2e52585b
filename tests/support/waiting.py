# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for what the kernel or another process does a moment later: when something is closed, killed or started."""

from __future__ import annotations

import time
from typing import Any, Callable


def wait_for(condition: Callable[[], Any], seconds: float = 60, otherwise: str = "it is not so") -> None:
    """Until it is so. The time only ends a test that fails.

    :param otherwise: what is to be said then.
    :raises AssertionError: it does not become so.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{otherwise} after {seconds:g} s"
        time.sleep(0.005)
