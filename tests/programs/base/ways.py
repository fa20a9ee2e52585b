# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in which each program's work is done besides plain TCP, and the changes of settings midway."""

from __future__ import annotations

import threading
from typing import Any, Dict, NamedTuple, Optional, Tuple

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import reasons, settings_value
from support.datapath import Redirection

Settings = Dict[str, Any]
_ENFORCE: Settings = {"mode": "enforce"}
_DRAIN: Settings = {"mode": "drain"}


class Way(NamedTuple):
    """Settings at the beginning, and those that come one after the other while the work is done."""

    name: str
    first: Settings
    turns: Tuple[Settings, ...] = ()
    redirects: bool = True


WAYS = {
    way.name: way
    for way in (
        Way("enforce", _ENFORCE),
        Way("observe", {"mode": "observe"}, redirects=False),
        Way("drain", _ENFORCE, (_DRAIN,)),
        Way("back", _ENFORCE, (_DRAIN, _ENFORCE)),
        Way("budget", _ENFORCE, ({"budget": settings_value.MIN_BUDGET},)),
        Way("demoted", _ENFORCE, ({"demote_below": 1 << 30, "demote_after": 1},)),
    )
}

# Whatever happens on a connection shows in one of these.
_SIGNS = [
    reason.label
    for reason, (unit, _text) in reasons.DESCRIPTIONS.items()
    if reason and unit in (reasons.Unit.MESSAGE, reasons.Unit.SOCKET)
]


def _signs(redirection: Redirection) -> int:
    return redirection.events(*_SIGNS)


class Turns(threading.Thread):
    """Makes the changes of a way while the block runs.

    The first comes after so many messages and connections, each further one as soon as the one before it shows.

    :ivar made: int, how many were made while the work went on.
    """

    def __init__(self, redirection: Redirection, way: Way, after: int) -> None:
        super().__init__(daemon=True)
        self.made = 0
        self._redirection, self._way, self._after = redirection, way, after
        self._over = threading.Event()
        self._began = self._shown = 0
        self._failed: Optional[BaseException] = None

    def run(self) -> None:
        try:
            self._make()
        except BaseException as error:  # for whoever waits
            self._failed = error

    def _make(self) -> None:
        goal = self._began + self._after
        for settings in self._way.turns:
            while _signs(self._redirection) < goal:
                if self._over.wait(0.001):
                    return
            self._redirection.set(**settings)
            self.made += 1
            if self.made == 1:
                self._shown = _signs(self._redirection)
            goal = _signs(self._redirection) + 1

    def account(self) -> str:
        """How far the work was at the first change, and in all."""
        shown = f"the first after {self._shown - self._began}" if self._shown else "none"
        total = _signs(self._redirection) - self._began
        return f"{self.made} changes, {shown} of {total} messages and connections"

    def __enter__(self) -> Turns:
        self._began = _signs(self._redirection)  # before the work, however late the thread gets to run
        self.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._over.set()
        self.join()
        if self._failed:
            raise self._failed
        if _signs(self._redirection) == self._shown:
            self.made = 0  # the work was over just before the change
