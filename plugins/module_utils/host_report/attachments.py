# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every attachment of the manifest, compared with what the kernel says about its target."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..kernel import hooks, libbpf, objects
from ..kernel.hooks import KINDS
from ..kernel.model import Attached
from ..resource.attachment import observe as attachment_observe
from ..resource.attachment import plan as planning
from ..resource.snapshot import Snapshot
from ..state import manifest

Read = Callable[[str, Callable[[], Any]], Any]


def report(read: Read, host: Snapshot, document: Optional[manifest.Manifest]) -> Dict[str, List[Dict[str, Any]]]:
    """``attachments`` and ``foreign``, the latter programs that are not ours on the same targets.

    :param read: called with what is read and how; gives None if it cannot be.
    """
    found: List[Dict[str, Any]] = []
    foreign: Dict[Tuple[Any, ...], Dict[str, Any]] = {}
    recorded = document["attachments"] if document else []
    links = read("links", lambda: host.links) if recorded else []
    for entry in recorded if links is not None else []:
        wanted = _wanted(entry)
        observed = read(f"attachment on {wanted.target}", partial(attachment_observe.observe, wanted, host))
        if observed is None:
            continue
        found.append({**_shown(wanted, observed), "withheld": bool(entry.get("needs") and not entry.get("met"))})
        for each in planning.foreign(wanted, observed):
            key = (wanted.target, *each)
            foreign[key] = {**_target(wanted), **_named(each)}
    # What one of our attachments takes for foreign may be another one of our own.
    ours = {entry["program_id"] for entry in found}
    return {
        "attachments": found,
        "foreign": [each for each in foreign.values() if each["program_id"] not in ours],
    }


def _wanted(entry: planning.Record) -> planning.Wanted:
    kind, target = hooks.target(entry)
    return planning.Wanted(entry["program"], kind, target, check=True, hook=hooks.recorded(entry))


def _target(wanted: planning.Wanted) -> Dict[str, Optional[str]]:
    return {kind: wanted.target if wanted.kind == kind else None for kind in KINDS}


def _shown(wanted: planning.Wanted, observed: planning.Observed) -> Dict[str, Any]:
    mine = planning.ours(wanted, observed)
    first = mine[0] if mine else None
    return {
        "program": wanted.program,
        **_target(wanted),
        "attach_type": observed.hook.name if observed.hook else None,
        "target_id": observed.target_id,
        "times": len(mine),
        "program_id": first.program_id if first else None,
        "method": first.method if first else None,
        "link_id": first.link_id if first else None,
        "link_pin": wanted.link_pin if observed.pinned else None,
        "pinned_program_id": observed.program_id,
    }


def _named(each: Attached) -> Dict[str, Any]:
    program = objects.program_by_id(each.program_id)
    return {
        "program_id": each.program_id,
        "name": program.name if program else None,
        "type": libbpf.prog_type_name(program.type) if program else None,
        "method": each.method,
        "link_id": each.link_id,
    }
