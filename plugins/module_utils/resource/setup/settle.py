# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that the operator has left open: known from an earlier run, or measured."""

from __future__ import annotations

from typing import Any, Dict

from ...calibration import decision, measure, record
from ...errors import SockredirError
from ...state import store
from ..snapshot import Snapshot
from .plan import Wanted


def settled(wanted: Wanted, host: Snapshot) -> Wanted:
    """What is wanted, with ``demote_below``; the caller holds the lock, since measuring takes some seconds.

    With ``wanted.check`` nothing is measured, and the value may be :data:`record.LATER`.
    """
    given = wanted.settings["demote_below"]
    demotion = _found_out(wanted, host) if given is None else record.given(given)
    return wanted._replace(settings={**wanted.settings, "demote_below": demotion.below}, calibration=demotion.record)


def _found_out(wanted: Wanted, host: Snapshot) -> record.Demotion:
    program = record.program(host.document)
    key = record.valid_for(program.get("object_sha256"))
    before = record.known(host.document, key)
    if before:
        return before
    if wanted.check:
        return record.Demotion(record.LATER, {"source": record.MEASURED, **key})
    return record.found(lambda: _measure(program, host), key)


def _measure(program: Dict[str, Any], host: Snapshot) -> decision.Measured:
    if not program.get("object_sha256"):
        raise SockredirError("the manifest names no object that redirects")
    return measure.measure(store.get(host.state_dir, program["object_sha256"]), program["config"])
