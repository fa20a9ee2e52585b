# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compute the setting ``demote_below`` from measured turns of plain TCP and redirection. Pure."""

from __future__ import annotations

import statistics
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

#: Bytes a message: what is compared.
SIZES = tuple(kib << 10 for kib in (4, 8, 16, 24, 32, 48, 64, 128))
#: Bytes; larger than any message, so every one-way run is left to TCP.
NEVER = 1 << 30
#: With fewer turns of each kind, a size is not judged.
LEAST_TURNS = 3
#: How much faster redirection has to be: two comparisons on one machine differ by that much.
MARGIN = 0.1
#: The share of turns that may have been slower nevertheless.
STRAY = 1 / 3


class Turn(NamedTuple):
    """A plain and a redirected transfer of the same bytes, one right after the other; bytes a second each."""

    plain: float
    redirected: float

    @property
    def ratio(self) -> float:
        """Above 1 if redirection was faster."""
        return self.redirected / self.plain


class Measured(NamedTuple):
    """What a comparison has found.

    :ivar streams: bytes a message -> its turns, one way.
    :ivar requests: kind (``plain``, ``redirected``) -> microseconds of a request of 64 bytes and its answer.
    :ivar many: the same on many connections at once: the time for all, divided by their number.
    """

    streams: Dict[int, List[Turn]]
    requests: Dict[str, float]
    many: Dict[str, float]


def wins(turns: Sequence[Turn]) -> bool:
    """Whether redirection is surely at least as fast: by the median of the turns, and in nearly each of them."""
    if len(turns) < LEAST_TURNS:
        return False
    ratios = [turn.ratio for turn in turns]
    slower = sum(ratio < 1 for ratio in ratios)
    return statistics.median(ratios) >= 1 + MARGIN and slower <= STRAY * len(ratios)


def stream_from(streams: Mapping[int, Sequence[Turn]]) -> Optional[int]:
    """The smallest size, in bytes, from which on redirection wins at every size; None if it does at none.

    A size without turns is not won: what is not known is left to TCP.
    """
    smallest = None
    for size in reversed(SIZES):
        if not wins(streams.get(size, ())):
            break
        smallest = size
    return smallest


def demote_below(smallest: Optional[int]) -> int:
    """The setting that follows from :func:`stream_from`."""
    return NEVER if smallest is None else smallest


def ratios(streams: Mapping[int, Sequence[Turn]]) -> Dict[str, float]:
    """Median of each size's ratios, as JSON keeps it."""
    return {
        str(size): round(statistics.median(turn.ratio for turn in turns), 3)
        for size, turns in sorted(streams.items())
        if turns
    }


def plain_us(streams: Mapping[int, Sequence[Turn]]) -> Dict[str, float]:
    """Microseconds that a message of each size takes by plain TCP: median, as JSON keeps it."""
    return {
        str(size): round(statistics.median(size / turn.plain for turn in turns) * 1e6, 2)
        for size, turns in sorted(streams.items())
        if turns
    }
