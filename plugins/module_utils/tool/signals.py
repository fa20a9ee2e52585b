# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that ask a verb to end in good order."""

from __future__ import annotations

import contextlib
import signal
from typing import Iterator, List


@contextlib.contextmanager
def asked_to_end() -> Iterator[List[int]]:
    """The signals that have asked to end, so that what has happened until then is still shown."""
    seen: List[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda which, _frame: seen.append(which)) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
