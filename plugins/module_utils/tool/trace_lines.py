# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of a trace: what the data path and interception tell, each in a ring of its own, in one order of time."""

from __future__ import annotations

import time
from typing import Dict, Iterable, List, NamedTuple, Optional

from ..datapath import intercept_live, intercept_record, layout, live
from ..errors import SockredirError
from ..kernel import ring
from ..resource.intercept.observe import recorded
from ..state import manifest
from . import context


class Line(NamedTuple):
    """:ivar time: CLOCK_MONOTONIC, nanoseconds."""

    time: int
    text: str


class Order:
    """Puts lines of several rings into one order of time.

    One ring is read after the other, so a line that is younger than the beginning of the look before is kept: the other
    ring's next line may be older.
    """

    def __init__(self) -> None:
        self._held: List[Line] = []
        self._before = 0

    def shown(self, began: int, lines: Iterable[Line], last: bool = False) -> List[str]:
        """What is to be shown now.

        :param began: int, when this look at the rings began, CLOCK_MONOTONIC in nanoseconds.
        :param lines: what it has found.
        :param last: whether there will be no further look.
        """
        found = sorted([*self._held, *lines], key=lambda line: line.time)
        ready = [line for line in found if last or line.time <= self._before]
        self._held, self._before = found[len(ready) :], began
        return [line.text for line in ready]


class _Ring:
    """A ring buffer by its pin, from now on.

    :raises SockredirError: it cannot be mapped.
    """

    def __init__(self, pin_dir: str, name: str) -> None:
        found = live.open_map(pin_dir, name)
        if found is None:
            raise SockredirError(f"there is no {name} map in {pin_dir}", "run: sockredirctl restore")
        with found as events:
            self.id = events.info.id
            try:
                self._reader = ring.Reader(events.fileno(), events.info.max_entries)
            except OSError as error:
                raise SockredirError(f"the {name} map in {pin_dir} cannot be mapped: {error.strerror}") from error

    def read(self) -> List[bytes]:
        batch = self._reader.read()
        if batch.lost:
            context.say(f"{batch.lost} bytes of events came faster than they could be shown")
        return batch.records

    def close(self) -> None:
        self._reader.close()


class Lines:
    """Reads both rings; that of interception if there is one, and from when there is one.

    :raises SockredirError: the data path has no ring.
    """

    def __init__(self, pin_dir: str, state_dir: str) -> None:
        self._pin_dir, self._state_dir = pin_dir, state_dir
        self._sockets = _Ring(pin_dir, "events")
        self._intercepts: Optional[_Ring] = None
        self._names: Dict[int, str] = {}
        self._order = Order()
        self.find_interception()
        self._untold = intercept_live.untold(pin_dir)

    def find_interception(self) -> None:
        """Its programs may have been loaded, loaded anew, or removed since the last time."""
        number = intercept_live.ring_id(self._pin_dir)
        if self._intercepts is not None and self._intercepts.id != number:
            self._intercepts.close()
            self._intercepts = None
        if self._intercepts is None and number is not None:
            self._intercepts = _Ring(self._pin_dir, intercept_live.RING)

    def read(self, last: bool = False) -> List[str]:
        """What is to be shown next.

        :param last: whether nothing is to be kept for the next time.
        """
        began = time.monotonic_ns()
        return self._order.shown(began, self._of_sockets() + self._of_interception(), last)

    def _of_sockets(self) -> List[Line]:
        events = [layout.decode_event(record) for record in self._sockets.read()]
        return [Line(event.time, layout.format_event(event)) for event in events]

    def _of_interception(self) -> List[Line]:
        records = [intercept_record.decode(raw) for raw in self._intercepts.read()] if self._intercepts else []
        if records:  # rules may have changed
            rules = recorded(manifest.known(self._state_dir))
            self._names.update({rule["slot"]: rule["name"] for rule in rules})
        return [Line(record.time, intercept_record.line(record, self._names)) for record in records]

    def close(self) -> None:
        """Say what could not be told, too."""
        untold = intercept_live.untold(self._pin_dir) - self._untold
        if untold > 0:
            context.say(f"{untold} events of interception did not fit into the ring buffer")
        for each in (self._sockets, self._intercepts):
            if each is not None:
                each.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
