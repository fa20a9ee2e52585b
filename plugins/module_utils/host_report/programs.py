# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is pinned in a directory."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from ..host import mounts
from ..kernel import libbpf, objects
from ..kernel.model import LinkInfo, MapInfo, Program
from ..resource.snapshot import Snapshot
from ..state import manifest

NOTHING: Dict[str, Any] = {"programs": [], "maps": [], "links": []}


def pinned(pin_dir: str, snapshot: Snapshot) -> Dict[str, List[Dict[str, Any]]]:
    """Programs, maps and links pinned in a directory; nothing if there is no such directory on a bpffs.

    :raises OSError: it may not be read.
    :raises SockredirError: a pin may not be opened.
    """
    found: Dict[str, List[Dict[str, Any]]] = {"programs": [], "maps": [], "links": []}
    if not mounts.bpffs_holding(pin_dir, snapshot.mounts):
        return found
    try:
        names = sorted(os.listdir(pin_dir))
    except FileNotFoundError:
        return found
    for name in names:
        pin = objects.at(os.path.join(pin_dir, name))
        if pin and pin.kind in _SHOW:
            found[pin.kind + "s"].append({"pin": pin.path, **_SHOW[pin.kind](pin.object)})
    return found


def _program(program: Program) -> Dict[str, Any]:
    return {
        "id": program.id,
        "name": program.name,
        "type": libbpf.prog_type_name(program.type),
        "tag": program.tag,
        "digest": program.digest,
        "layout": program.layout,
        "map_ids": list(program.map_ids),
    }


def _map(info: MapInfo) -> Dict[str, Any]:
    return {
        "id": info.id,
        "name": info.name,
        "type": libbpf.map_type_name(info.type),
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
    }


def _link(info: LinkInfo) -> Dict[str, Any]:
    return {
        "id": info.id,
        "type": libbpf.link_type_name(info.type),
        "program_id": info.program_id,
        "cgroup_id": info.cgroup_id or None,
        "map_id": info.map_id or None,
        "netns_ino": info.netns_ino or None,
    }


_SHOW: Dict[str, Any] = {"program": _program, "map": _map, "link": _link}


def draining(document: Optional[manifest.Manifest]) -> List[Dict[str, Any]]:
    """Replaced or removed programs that live connections still use."""
    if not document or not document["draining"] or not manifest.ids_valid(document):
        return []
    alive = objects.alive([entry["program_id"] for entry in document["draining"]])
    return [entry for entry in document["draining"] if entry["program_id"] in alive]
