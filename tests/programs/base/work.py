# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a work on plain TCP and in one way, and compares."""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple

from .place import Place
from .ways import Turns, Way

_ATTEMPTS = 8


class Comparison:
    """What a test is given to compare with.

    :param key: str, what the work is known by among those done on plain TCP.
    """

    def __init__(self, key: str, plain: Tuple[Any, Dict[str, Any]], way: Tuple[Way, Place, Any]) -> None:
        self._key = key
        self._plain_site, self._results = plain
        self._way, self._place, self._site = way

    def __call__(self, work: Callable[[Any], Any], after: int = 20) -> None:
        """Do it both ways.

        :param after: messages and connections before the first change of settings; far fewer than the work takes.
            A work that was over before its changes is done again, with half of them.
        """
        if self._key not in self._results:
            self._results[self._key] = work(self._plain_site)
        wanted = self._results[self._key]
        print(f"plain TCP: {wanted}")  # shown by pytest -rP
        for attempt in range(_ATTEMPTS):
            if self._once(work, wanted, max(1, after >> attempt)):
                return
        raise AssertionError(f"in {_ATTEMPTS} attempts the work was over before the change of settings: too small")

    def _once(self, work: Callable[[Any], Any], wanted: Any, after: int) -> bool:
        """Whether all changes came while it was running."""
        redirection = self._place.redirection
        redirection.set(**self._way.first)
        before, added = redirection.events("redirected"), redirection.events("socket_added")
        with Turns(redirection, self._way, after) as turns:
            found = work(self._site)
        print(f"{self._way.name}: {turns.account()}")
        assert found == wanted, f"{self._way.name}: {found}, plain TCP: {wanted}; counters: {_nonzero(redirection)}"
        redirected = redirection.events("redirected") - before
        assert bool(redirected) == self._way.redirects, f"{redirected} messages were redirected"
        assert self._way.redirects or redirection.events("socket_added") == added, "a socket is in the map"
        return turns.made == len(self._way.turns)


def _nonzero(redirection) -> Dict[str, int]:
    return {name: count.events for name, count in redirection.counters().items() if count.events}
