# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl top``: a live view, on the whole screen of a terminal, or as text if there is none."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, Callable, List, Optional

from ..datapath import live
from ..errors import SockredirError
from . import context, ports, signals, top_view

_TICK_MS = 100
Look = Callable[[], top_view.Look]


def top(state_dir: str, interval: float, count: Optional[int]) -> int:
    """Show the view again each interval until a key, a signal, or so many views.

    :param interval: seconds.
    :param count: None: until it is ended.
    :raises SockredirError: the maps are gone.
    """
    with signals.asked_to_end() as stopped:
        _view(lambda: look(state_dir), interval, count, stopped)
    return context.OK


def look(state_dir: str) -> top_view.Look:
    """:raises SockredirError: nothing is enabled, or a map is missing or of another layout."""
    document = context.enabled(state_dir)
    pin_dir = document["pin_dir"]
    found, counts, told = ports.observed(document), live.counters(pin_dir), live.read_settings(pin_dir)
    if counts is None:
        raise SockredirError(f"there is no counters map in {pin_dir}", "run: sockredirctl restore")
    mode = told.settings.mode.name.lower() if told and told.settings else None
    return top_view.Look(time.monotonic(), found, counts, mode, live.used(pin_dir) or 0)


def _view(read: Look, interval: float, count: Optional[int], stopped: List[int]) -> None:
    curses = _curses()
    if curses is None:
        _as_text(read, interval, count, stopped)
        return
    # The first look comes before the terminal is changed: what is wrong is said on the terminal as it was.
    first = read()
    curses.wrapper(lambda screen: _Screen(curses, screen, read, stopped).run(first, interval, count))


def _curses() -> Any:
    """The module if there is a terminal that it knows, else None."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    try:
        import curses

        curses.setupterm()
    except ImportError:
        return None
    except curses.error:
        return None
    return curses if curses.tigetstr("clear") and curses.tigetstr("cup") else None


def _as_text(read: Look, interval: float, count: Optional[int], stopped: List[int]) -> None:
    """With rates from the first view on: it comes after an interval."""
    before, left = read(), count
    while not stopped and left != 0:
        _sleep(interval, stopped)
        now = read()
        context.show([*top_view.lines(before, now, top_view.View()), ""])
        sys.stdout.flush()
        before, left = now, None if left is None else left - 1


def _sleep(seconds: float, stopped: List[int]) -> None:
    until = time.monotonic() + seconds
    while not stopped and time.monotonic() < until:
        time.sleep(min(_TICK_MS / 1000, max(0.0, until - time.monotonic())))


class _Screen:
    """The view on a terminal; ``curses.wrapper`` puts that back, whatever happens."""

    def __init__(self, curses: Any, screen: Any, read: Look, stopped: List[int]) -> None:
        self._curses, self._screen, self._read, self._stopped = curses, screen, read, stopped
        self._view: Optional[top_view.View] = top_view.View()
        self._before: Optional[top_view.Look] = None
        screen.timeout(_TICK_MS)
        with contextlib.suppress(curses.error):  # a terminal that cannot hide it
            curses.curs_set(0)

    def run(self, first: top_view.Look, interval: float, count: Optional[int]) -> None:
        now, left = first, count
        while True:
            self._draw(now)
            self._wait(now, interval)
            left = None if left is None else left - 1
            if self._over() or left == 0:
                return
            self._before, now = now, self._read()

    def _over(self) -> bool:
        return bool(self._stopped) or self._view is None

    def _wait(self, now: top_view.Look, interval: float) -> None:
        """Follow keys until it is time to look again. A new size of the terminal comes as a key."""
        until = time.monotonic() + interval
        while not self._over() and time.monotonic() < until:
            key = self._screen.getch()
            if key == -1:
                continue
            name = self._curses.keyname(key).decode("ascii", "replace")
            self._view = top_view.press(self._view or top_view.View(), name)
            if self._view is not None:
                self._draw(now)

    def _draw(self, now: top_view.Look) -> None:
        height, width = self._screen.getmaxyx()
        shown = top_view.lines(self._before, now, self._view or top_view.View(), height)
        self._screen.erase()
        for number, line in enumerate(shown[: height - 1]):
            emphasis = self._curses.A_REVERSE if number == top_view.HEAD else 0
            self._put(number, line.ljust(width)[: width - 1], emphasis)
        self._put(height - 1, top_view.KEYS[: width - 1], self._curses.A_DIM)
        self._screen.refresh()

    def _put(self, number: int, line: str, emphasis: int) -> None:
        with contextlib.suppress(self._curses.error):  # the terminal has become smaller meanwhile
            self._screen.addstr(number, 0, line, emphasis)
