# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a plan for interception rules, each with its undo."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...datapath import intercept_live
from ...errors import SockredirError
from ...host import files, listeners, systemd
from ...state import manifest
from ..services import apply as services_apply
from ..services import plan as services_plan
from ..setup.apply import keep_of
from ..setup.plan import Content
from .plan import NewRules
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
        return lambda: intercept_live.write_rules(pin_dir, before)

    return run


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
