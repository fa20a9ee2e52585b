# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The states besides redirected that a socket can be in, and how the suite brings a case's sockets into them.

A state that holds from the first byte is a matter of settings. One that comes later is brought about on each
connection that the case makes with Net.pair, before the case has it: messages go both ways, the operator changes
settings, messages go until the connection's flow record says that both directions are there. The case's program is
the same in all of them; a state that was not reached fails the run.
"""

import contextlib
import select
import socket
import threading
import time

from . import libc
from .app import SOON, Mismatch, eventually

#: The first messages of a connection; big enough that no run of small messages begins.
_FIRST = b"\xa5" * 40000
#: More than a direction has been charged for by then.
_MORE = b"\xa5" * 200000
_LITTLE = b"\xa5" * 10
#: More than any reader may be behind.
_FLOOD = 8 << 20


class Step:
    """settings: what the operator sets. there: names of the states that both directions are to have then.

    "left" is the state of a socket that has left the map, whatever its direction was before.
    small: the messages that lead there are small ones. flood: so do messages that are not read until the state is
    reached.
    """

    def __init__(self, settings, there, small=False, flood=False):
        self.settings = settings
        self.there = there
        self.small = small
        self.flood = flood

    def reached(self, flow):
        """True when both ends of the flow record are where the step leads."""
        return all(("left" if side.left else side.state) in self.there for side in flow.sides)


class State:
    """start: settings at the beginning of a run and of each connection. steps: what follows on each connection.

    counted: reasons of which at least one must have been counted, else the run proves nothing.
    never: reasons that must not have been counted.
    """

    def __init__(self, title, start=None, steps=(), counted=(), never=()):
        self.title = title
        self.start = start or {}
        self.steps = steps
        self.counted = counted
        self.never = never


_OVER = Step({"budget": 0}, ("over_budget",))
_AGAIN = Step({}, ("redirected",))
_DRAIN = {"mode": "drain"}
#: Directions that are on TCP for good: who reads what came by TCP leaves the map at once, its peer with it.
_DRAINED = ("drained", "left")
_DEMOTED = ("demoted", "left")

STATES = {
    "observe": State("mode observe", {"mode": "observe"}, (), ("observed",), ("redirected", "socket_added")),
    "over-budget": State("in the map, no budget from the start", {"budget": 0}, (), ("over_budget",), ("redirected",)),
    "budget": State("the budget was spent midway", steps=(_OVER,), counted=("over_budget",)),
    "demoted": State(
        "small one-way messages midway",
        steps=(Step({"demote_below": 1 << 31, "demote_after": 1}, _DEMOTED, small=True),),
        counted=("demoted",),
    ),
    "drained": State("mode drain midway", steps=(Step(_DRAIN, _DRAINED),), counted=("drained",)),
    "observed": State("mode observe midway", steps=(Step({"mode": "observe"}, _DRAINED),), counted=("drained",)),
    "left": State("both have left the map", steps=(Step(_DRAIN, ("left",)),), counted=("drained",)),
    "back": State("redirected again after the budget was spent", steps=(_OVER, _AGAIN), counted=("over_budget",)),
    "ahead": State(
        "redirected again after the reader was a window behind",
        steps=(Step({}, ("ahead", "behind"), flood=True), _AGAIN),
        counted=("ahead",),
    ),
}

#: So many connections of a run are brought into the state; a case that makes more does not live by each of them.
_ENOUGH = 100


class Talker:
    """In the process of a case on plain TCP: connections that have carried as much as those of a Conductor."""

    def __init__(self):
        self._left = _ENOUGH
        self._one_at_a_time = threading.RLock()

    def connected(self, make):
        """A pair of sockets that ``make()`` connects, after some talk."""
        with self._one_at_a_time:
            pair = make()
            self._left -= 1
            if self._left >= 0:
                for message in (_FIRST, _MORE):
                    _talk(*pair, message)
                _wait_for_acknowledgements(*pair)
            return pair


class Conductor:
    """In the case's process: brings fresh connections into a state. operate: asks the operator, returns the answer."""

    def __init__(self, state, operate):
        self._steps = STATES[state].steps
        self._operate = operate
        self._left = _ENOUGH
        self._one_at_a_time = threading.RLock()

    def connected(self, make):
        """A pair of sockets that ``make()`` connects, in the state."""
        with self._one_at_a_time:
            self._left -= 1
            if not self._steps or self._left < 0:
                return make()
            self._operate("state begin")
            client, server = make()
            name = f"{libc.namespace(client)} {client.getsockname()[1]} {client.getpeername()[1]}"
            if self._operate(f"state known {name}") == "yes":
                self._bring(client, server, name)
            return client, server

    def _bring(self, client, server, name):
        _talk(client, server, _FIRST)
        for index, step in enumerate(self._steps):
            self._operate(f"state step {index}")
            if step.flood:
                self._flood(client, server, index, name)
            else:
                self._talk_until(client, server, _LITTLE if step.small else _MORE, index, name)
        _wait_for_acknowledgements(client, server)

    def _reached(self, index, name):
        return self._operate(f"state reached {index} {name}") == "yes"

    def _talk_until(self, client, server, message, index, name):
        deadline = time.monotonic() + SOON
        while not self._reached(index, name):
            if time.monotonic() > deadline:
                raise Mismatch("state not reached: {}".format(self._operate(f"state of {name}")))
            _talk(client, server, message)

    def _flood(self, client, server, index, name):
        """Both ends write and nobody reads until the state is reached, or neither takes any more."""
        blocking = [(end, end.gettimeout()) for end in (client, server)]
        written = {client: 0, server: 0}
        for end in written:
            end.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while not self._reached(index, name) and written[end] < _FLOOD:
                    written[end] += end.send(_MORE)
        for source, target in ((client, server), (server, client)):
            while written[source]:
                if not select.select([target], [], [], SOON)[0]:
                    raise Mismatch("no progress on the way into the state")
                written[source] -= len(target.recv(1 << 20))
        for end, timeout in blocking:
            end.settimeout(timeout)


def _wait_for_acknowledgements(*pair):
    def arrived():
        for end in pair:
            with contextlib.suppress(OSError):  # MPTCP knows no such option
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return not any(libc.ioctl_int(end, libc.SIOCOUTQ) for end in pair)

    if not eventually(arrived):
        raise Mismatch("what brought the state about is not acknowledged")


def _talk(client, server, message):
    """A message each way, or a run of little ones, read at the other end."""
    for source, target in ((client, server), (server, client)):
        for _index in range(3 if message == _LITTLE else 1):
            _carry(source, target, message)


def _carry(source, target, message):
    """Send and read without blocking: one thread has both ends, and buffers may be small."""
    blocking = [(end, end.gettimeout()) for end in (source, target)]
    try:
        for end, _timeout in blocking:
            end.setblocking(False)
        sent = got = 0
        while got < len(message):
            if sent < len(message):
                with contextlib.suppress(BlockingIOError):
                    sent += source.send(message[sent:])
            if select.select([target], [source] if sent < len(message) else [], [], SOON) == ([], [], []):
                raise Mismatch("no progress on the way into the state")
            try:
                part = target.recv(1 << 20)
            except BlockingIOError:
                continue
            if part != message[got : got + len(part)] or not part:
                raise Mismatch(f"wrong bytes on the way into the state: {part[:20]!r}")
            got += len(part)
    finally:
        for end, timeout in blocking:
            end.settimeout(timeout)


class Operator:
    """In the suite's process: does what a Conductor asks for, on the maps of one redirection."""

    def __init__(self, state, maps):
        self._state = STATES[state]
        self._maps = maps
        self.brought = 0

    def begin(self):
        """The settings at the beginning."""
        self._maps.force(**self._state.start)

    def __call__(self, request):
        """Carry out "state ..." and return the answer."""
        _state, verb, *rest = request.split()
        if verb == "begin":
            self.begin()
        elif verb == "step":
            self._maps.force(**self._state.steps[int(rest[0])].settings)
        elif verb == "known":
            return "yes" if self._flow(rest) else "no"
        elif verb == "reached":
            return self._reached(int(rest[0]), self._flow(rest[1:]))
        elif verb == "of":
            return str(self._flow(rest))
        return "ok"

    def _flow(self, name):
        found = self._maps.flow(*map(int, name))
        return found if found and all(side.cookie for side in found.sides) else None

    def _reached(self, index, flow):
        if flow is None or not self._state.steps[index].reached(flow):
            return "no"
        self.brought += index == len(self._state.steps) - 1
        return "yes"

    def problems(self, counted, may_be_silent=False):
        """What the counters say against the state, as a list of lines.

        counted: events of the run by reason. may_be_silent: the case need not send anything.
        """
        found = [f"{counted[reason]} messages were {reason}" for reason in self._state.never if counted.get(reason)]
        if not may_be_silent and not any(counted.get(reason) for reason in self._state.counted):
            found.append("proves nothing: no message was {}".format(" or ".join(self._state.counted)))
        return found
