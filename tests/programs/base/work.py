# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a work on plain TCP and in one way, and compares."""

from __future__ import annotations

from typing import Any, Callable, Dict, Tuple

from .place import Done, Place
from .turns import Turns
from .ways import Way


class Comparison:
    """What a test is given to compare with.

    :param key: str, what the work is known by among those done on plain TCP.
    """

    def __init__(self, key: str, plain: Tuple[Any, Dict[str, Any]], way: Tuple[Way, Place, Any]) -> None:
        self._key = key
        self._plain_site, self._results = plain
        self._way, self._place, self._site = way

    def __call__(self, work: Callable[[Any], Any], after: int = 10) -> None:
        """Do it both ways.

        :param after: redirected messages before the first change of settings; so few that they are redirected even
            if their reader stands still.
        """
        if self._key not in self._results:
            self._results[self._key] = work(self._plain_site)
        wanted = self._results[self._key]
        print(f"plain TCP: {wanted}")  # shown by pytest -rP
        assert not isinstance(wanted, Done) or wanted.exit == 0, "it fails on plain TCP too, so nothing is compared"
        redirection = self._place.redirection
        redirection.set(**self._way.first)
        before, added = redirection.events("redirected"), redirection.events("socket_added")
        with Turns(redirection, self._way, after) as turns:
            found = work(self._site)
        redirected = redirection.events("redirected") - before
        print(f"{self._way.name}: {turns.account()}, {redirected} redirected")
        assert found == wanted, f"{self._way.name}: {found}, plain TCP: {wanted}; counters: {_nonzero(redirection)}"
        assert bool(redirected) == self._way.redirects, f"{redirected} messages were redirected"
        assert self._way.redirects or redirection.events("socket_added") == added, "a socket is in the map"
        assert turns.made == len(self._way.turns), f"the work is too small: {turns.account()}"


def _nonzero(redirection) -> Dict[str, int]:
    return {name: count.events for name, count in redirection.counters().items() if count.events}
