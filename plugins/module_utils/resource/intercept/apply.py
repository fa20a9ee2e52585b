# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a plan for interception rules, each with its undo."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...datapath import intercept, intercept_live
from ...errors import SockredirError
from ...host import files, listeners, processes, systemd
from ...kernel import libbpf
from ...state import manifest
from ..services import apply as services_apply
from ..services import plan as services_plan
from ..setup.apply import keep_of
from ..setup.plan import Content
from .observe import unlisted
from .plan import Listeners, NewRules, Unlisted
from .services import Listening

#: How long a proxy may take to listen.
LISTEN_SECONDS = 30.0


def write(pin_dir: str) -> Handler:
    """The handler that tells the programs."""

    def run(step: Step) -> Undo:
        new = step.need(NewRules)
        before = intercept_live.read_rules(pin_dir) or []
        intercept_live.reset_counters(pin_dir, new.fresh)
        intercept_live.write_rules(pin_dir, new.rules)
        try:
            _enlist_all(pin_dir, new.rules)
        except SockredirError:
            intercept_live.write_rules(pin_dir, before)
            raise
        return lambda: intercept_live.write_rules(pin_dir, before)

    return run


def enlist(pin_dir: str) -> Handler:
    """The handler that tells the programs of the listeners that they do not know."""

    def run(step: Step) -> Undo:
        keys = _enlist_all(pin_dir, step.need(Listeners).rules)
        return lambda: _strike(pin_dir, keys)

    return run


def _strike(pin_dir: str, keys: List[bytes]) -> None:
    for key in keys:
        intercept_live.strike(pin_dir, key)


def _enlist_all(pin_dir: str, rules: List[intercept.Rule]) -> List[bytes]:
    """As they are now: services that were started on the way have new ones."""
    keys = [_enlist(pin_dir, each) for each in unlisted(pin_dir, rules)]
    return [key for key in keys if key]


def _enlist(pin_dir: str, listener: Unlisted) -> Optional[bytes]:
    try:
        number = processes.socket_of(listener.inode)
    except OSError as error:
        raise SockredirError(
            f"inbound: the listener at {listener.end.address} port {listener.end.port} cannot be had: {error}",
            "restart the proxy, so that the programs see it begin to listen",
        ) from error
    if number is None:  # closed meanwhile
        return None
    with libbpf.Fd(number):
        return intercept_live.enlist(pin_dir, listener.netns, listener.end, number)


class Record(NamedTuple):
    """:ivar rules: what the manifest is to say of them; None: as it does.
    :ivar files: the drop-ins of their services.
    :ivar commit: whether that is final.
    """

    rules: Optional[List[Dict[str, Any]]]
    files: Dict[str, str]
    commit: bool


def record(state_dir: str, pin_dir: str, wanted: Record) -> Handler:
    """The handler that has the manifest say so."""

    def change(document: manifest.Manifest) -> None:
        if wanted.rules is not None:
            document["intercepts"] = wanted.rules
        others = {path: text for path, text in document["files"].items() if not systemd.is_of_rules(path)}
        document["files"] = {**others, **wanted.files}
        document["pin_dir"] = document["pin_dir"] or pin_dir

    def run(_step: Step) -> Undo:
        saved = manifest.snapshot(state_dir)
        manifest.edit(state_dir, change)
        if wanted.commit:
            manifest.commit(state_dir)
        return _put_back(state_dir, saved)

    return run


def part(wanted: services_plan.Wanted) -> Dict[str, Handler]:
    """The handlers for the services of one slice."""
    changes = services_apply.Changes(wanted)

    def file(step: Step) -> Undo:
        undo = files.change(step.subject, step.need(Content).file, keep_of(step.subject, wanted.unit_dir))
        return changes.guard(step.subject, undo)

    return {"file": file, "start": _start, "listen": listen, **changes.handlers()}


def _start(step: Step) -> Undo:
    try:
        systemd.start(step.subject)
    except SockredirError as error:
        raise SockredirError(
            f"proxy: {step.subject} cannot be started: {error.message}",
            f"find out why with journalctl -u {step.subject}",
            error.detail,
        ) from error
    return lambda: systemd.stop(step.subject)


def listen(step: Step) -> Undo:
    """Wait until a proxy that was started listens.

    :raises SockredirError: it does not, in half a minute.
    """
    wanted = step.need(Listening)
    deadline = time.monotonic() + LISTEN_SECONDS
    while not any(listeners.is_heard(end, listeners.listeners()) for end in wanted.ends):
        if time.monotonic() >= deadline:
            raise SockredirError(
                f"{step.subject}: nothing listens at {' or '.join(wanted.ends)} {LISTEN_SECONDS:.0f} s after"
                f" {', '.join(wanted.services)} was started",
                f"find out why with journalctl -u {wanted.services[0]}, or correct to",
            )
        time.sleep(0.05)
    return None


def _put_back(state_dir: str, saved: manifest.Snapshot) -> Callable[[], None]:
    return lambda: manifest.put_back(state_dir, saved)
