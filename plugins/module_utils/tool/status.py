# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl status``: compare this host with its manifest."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

from ..calibration import record
from ..datapath import live
from ..errors import SockredirError
from ..operation import drift
from ..operation.drift_kinds import reported
from ..resource.program import observe as program_observe
from ..resource.snapshot import Snapshot
from ..state import manifest
from . import context

_SHOWN = ("program", "cgroup", "map", "method", "program_id", "link_id", "needs", "met")


def show(state_dir: str, as_json: bool) -> int:
    """Print it; the exit code says it too."""
    found = report(state_dir)
    if as_json:
        context.show_json(found)
    else:
        context.show(lines(found))
    if not found["enabled"]:
        return context.DIFFERS if found["drift"] else context.NOT_ENABLED
    return context.DIFFERS if found["drift"] else context.OK


def report(state_dir: str) -> Dict[str, Any]:
    """All that the lines say, for machines.

    :raises SockredirError: the kernel does not let us look.
    """
    compared = drift.with_manifest(Snapshot(state_dir))
    document = compared.document
    found: Dict[str, Any] = {
        "enabled": document is not None,
        "as_manifest": document is not None and not compared.steps,
        "drift": reported(compared.steps),
    }
    if document is not None:
        found.update(_document(document))
        found["foreign"] = [
            {"cgroup": cgroup, **each._asdict()} for cgroup, others in compared.foreign.items() for each in others
        ]
    return found


def _document(document: manifest.Manifest) -> Dict[str, Any]:
    return {
        "committed": document["committed"],
        "mode": _mode(document),
        "cgroup": document.get("cgroup"),
        "demote_below": document["settings"].get("demote_below"),
        "calibration": document.get(record.SECTION, {}),
        "pin_dir": document["pin_dir"],
        "programs": {
            name: {key: entry.get(key) for key in ("digest", "program_ids", "map_ids", "pins")}
            for name, entry in document["programs"].items()
        },
        "attachments": [{key: entry.get(key) for key in _SHOWN} for entry in document["attachments"]],
        "draining": list(program_observe.draining(document)),
    }


def _mode(document: manifest.Manifest) -> Optional[str]:
    """What the programs follow now."""
    try:
        found = live.read_settings(document["pin_dir"])
    except SockredirError:
        return None
    return found.settings.mode.name.lower() if found and found.settings else None


def lines(found: Dict[str, Any]) -> List[str]:
    """For people."""
    if not found["enabled"] and not found["drift"]:
        return ["not enabled on this host"]
    said = [] if not found["enabled"] else _summary(found)
    said += [_difference(each) for each in found["drift"]]
    number = len(found["drift"])
    said.append("as its manifest says" if found["as_manifest"] else f"{number} difference{'s' if number != 1 else ''}")
    return said


def _summary(found: Dict[str, Any]) -> List[str]:
    said = [f"mode {found['mode'] or 'unknown'}, cgroup {found['cgroup'] or 'none'}"]
    if found["demote_below"] is not None:
        said.append(record.words(found["demote_below"], found["calibration"]))
    for name, entry in sorted(found["programs"].items()):
        ids = ", ".join(f"{program_name} id {number}" for program_name, number in sorted(entry["program_ids"].items()))
        said.append(f"program {name}: {ids or 'not loaded in this boot'}")
    for entry in found["attachments"]:
        said.append(_attachment(entry))
    for entry in found["draining"]:
        said.append(f"draining: {entry['name']} id {entry['program_id']} since {entry['since']}")
    for entry in found["foreign"]:
        said.append(f"foreign: program id {entry['program_id']} on {entry['cgroup']} ({entry['method']}), left alone")
    return said


def _attachment(entry: Dict[str, Any]) -> str:
    said = f"{entry['program']} to {entry['cgroup'] or entry['map']}"
    if entry["needs"] and not entry["met"]:
        return f"not attached: {said} (this kernel does not meet {entry['needs']})"
    return f"attached: {said} ({entry['method']})"


def _difference(each: Dict[str, Any]) -> str:
    return f"{each['kind']}: {each['subject']}: {_short(each['before'])} -> {_short(each['after'])}"


def _short(value: Any) -> str:
    text = "absent" if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return " ".join(text.split())
