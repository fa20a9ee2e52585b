# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl trace``: one line for each socket that is put in the map, and for what interception does.

The programs write events until a moment that this process keeps moving ahead: killed, it turns itself off. Any number
of traces run side by side; the last to end turns it off at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from typing import Callable, Iterator, List, Optional

from ..datapath import intercept_live, live
from ..errors import SockredirError
from . import context, signals
from .trace_lines import Lines

_LOOK_SECONDS = 0.05
_RENEW_SECONDS = 1.0
_AHEAD_NS = 4 * 10**9


def trace(state_dir: str, seconds: Optional[float], count: Optional[int]) -> int:
    """Print events until a time, a number of events, or a signal."""
    pin_dir = context.enabled(state_dir)["pin_dir"]
    deadline = None if seconds is None else time.monotonic() + seconds
    with _among_others(pin_dir, state_dir), signals.asked_to_end() as stopped:
        _follow(pin_dir, state_dir, lambda: bool(stopped) or _over(deadline), count)
    return context.OK


def _over(deadline: Optional[float]) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _follow(pin_dir: str, state_dir: str, over: Callable[[], bool], count: Optional[int]) -> None:
    left = count
    with Lines(pin_dir, state_dir) as lines:
        maps = _ask(pin_dir, state_dir)
        renewal = time.monotonic() + _RENEW_SECONDS
        while not over() and left != 0:
            left = _print(lines.read(), left)
            time.sleep(_LOOK_SECONDS)
            if time.monotonic() >= renewal:
                renewal += _RENEW_SECONDS
                lines.find_interception()
                if _ask(pin_dir, state_dir) != maps:
                    raise SockredirError("the maps have been recreated", "start the trace again")
        _print(lines.read(last=True), left)


def _ask(pin_dir: str, state_dir: str) -> int:
    """Have events written for some more seconds.

    :returns: the id of the data path's settings map.
    """
    moment = time.monotonic_ns() + _AHEAD_NS
    intercept_live.trace_until(pin_dir, moment)
    return live.trace_until(pin_dir, state_dir, moment)


def _print(lines: List[str], left: Optional[int]) -> Optional[int]:
    """:returns: how many are still wanted; None: all."""
    shown = lines if left is None else lines[:left]
    if shown:
        sys.stdout.write("".join(line + "\n" for line in shown))
        sys.stdout.flush()
    return None if left is None else left - len(shown)


@contextlib.contextmanager
def _among_others(pin_dir: str, state_dir: str) -> Iterator[None]:
    """Stop the events at the end, unless somebody else still wants them."""
    number = os.open(
        os.path.join(state_dir, "trace.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        fcntl.flock(number, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError, SockredirError):
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                intercept_live.trace_until(pin_dir, 0)
                live.trace_until(pin_dir, state_dir, 0)
    finally:
        os.close(number)
