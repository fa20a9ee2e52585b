# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest's section ``calibration``, which explains ``demote_below``, and its text form.

``source`` is ``given`` (by the operator), ``measured`` or ``default`` (measuring failed; ``problem`` says why). Unless
it is ``given``, ``kernel``, ``cpu`` and ``object_sha256`` say what it holds for: it is measured again if one of them is
another. A measured one has ``ratios`` (bytes a message -> redirected by plain), ``plain_us`` (bytes a message ->
microseconds of one by plain TCP), ``request_us`` (a request of 64 bytes, by kind: the lower quartile of some rounds),
``many_us`` (the same on many connections at once) and ``stream_from`` (bytes a message, or None).
"""

from __future__ import annotations

import os
import platform
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional

from ..datapath import settings_value
from ..errors import SockredirError
from . import decision

Record = Dict[str, Any]
SECTION = "calibration"
GIVEN, MEASURED, DEFAULT = "given", "measured", "default"
#: In a plan: what only a run can know.
LATER = "would be measured"
_KEY = ("kernel", "cpu", "object_sha256")
_CPU = ("model name", "Processor", "cpu model", "cpu", "CPU part")


class Demotion(NamedTuple):
    """:ivar below: bytes, for the settings; in a plan alone it may be :data:`LATER`.
    :ivar record: the manifest's section.
    """

    below: Any
    record: Record


def given(below: int) -> Demotion:
    """What the operator has said."""
    return Demotion(below, {"source": GIVEN})


def valid_for(object_sha256: Optional[str]) -> Dict[str, Optional[str]]:
    """This kernel, this CPU, and an object."""
    return {"kernel": os.uname().release, "cpu": cpu_model(), "object_sha256": object_sha256}


def program(document: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """The manifest's entry of the programs that redirect; empty if there is none."""
    entries = document["programs"].values() if document else []
    return next((one for one in entries if "sockops" in one.get("pins", {})), {})


def cpu_model() -> str:
    """The CPU's name, or as much as the kernel says of it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            known = [line.partition(":") for line in lines]
    except OSError:
        known = []
    named = {key.strip(): value.strip() for key, _colon, value in reversed(known) if value.strip()}
    return next((named[key] for key in _CPU if key in named), platform.machine())


def known(document: Optional[Mapping[str, Any]], key: Mapping[str, Any]) -> Optional[Demotion]:
    """What an earlier run has found out for the same kernel, CPU and object; None if nothing."""
    record = (document or {}).get(SECTION) or {}
    below = (document or {}).get("settings", {}).get("demote_below")
    if record.get("source") not in (MEASURED, DEFAULT) or not isinstance(below, int):
        return None
    return Demotion(below, record) if all(record.get(name) == key.get(name) for name in _KEY) else None


def found(measure: Callable[[], decision.Measured], key: Mapping[str, Any]) -> Demotion:
    """Measure; the default if that fails."""
    try:
        measured = measure()
    except SockredirError as error:
        return Demotion(settings_value.DEFAULT_DEMOTE_BELOW, {"source": DEFAULT, **key, "problem": error.message})
    record = {"source": MEASURED, **key, **figures(measured)}
    return Demotion(decision.demote_below(record["stream_from"]), record)


def figures(measured: decision.Measured) -> Record:
    """What was measured, as the manifest keeps it."""
    return {
        "stream_from": decision.stream_from(measured.streams),
        "ratios": decision.ratios(measured.streams),
        "plain_us": decision.plain_us(measured.streams),
        "request_us": measured.requests,
        "many_us": measured.many,
    }


def warning(record: Mapping[str, Any]) -> Optional[str]:
    """What the operator should know of it, in one line."""
    if record.get("source") != DEFAULT:
        return None
    return (
        f"what demote_below should be could not be measured, the default is used: {record['problem']}; "
        "to have your own, give demote_below"
    )


def words(below: Optional[int], record: Mapping[str, Any]) -> str:
    """The setting and where it comes from, in one line."""
    if below is None:
        return "one-way streams: unknown"
    return f"{_streams(below)} ({_source(record)})"


def _streams(below: int) -> str:
    if below == 0:
        return "one-way streams: redirected at every size"
    if below >= decision.NEVER:
        return "one-way streams: by TCP"
    return f"one-way streams: redirected from {size(below)} per message up, by TCP below"


def _source(record: Mapping[str, Any]) -> str:
    source = record.get("source")
    if source == MEASURED:
        elsewhere = record.get("kernel") != os.uname().release
        return f"measured on kernel {record['kernel']}" if elsewhere else "measured on this host"
    if source == DEFAULT:
        return f"the default: {record['problem']}"
    return "as given" if source == GIVEN else "by an earlier version"


def size(count: int) -> str:
    """Bytes as people name message sizes: ``64 KiB``, ``30000 bytes``."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"
