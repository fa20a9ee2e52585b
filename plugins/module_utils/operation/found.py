# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find what belongs to this collection on a host without a valid manifest, from the pins and the kernel alone."""

from __future__ import annotations

import copy
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..host import cgroups, mounts, netns
from ..kernel import attachments, hooks, libbpf, objects
from ..kernel.hooks import CGROUP, MAP, NETNS
from ..kernel.model import LINK, Pin, Program
from ..resource.snapshot import Snapshot
from ..state import manifest

#: The name under which programs are put that no manifest names.
NAME = "found"
_MOST_CGROUPS = 100_000


def document(pin_dir: str, known: Optional[manifest.Manifest], host: Snapshot) -> manifest.Manifest:
    """A manifest of what is there, and of what a damaged one says.

    Ours are the pinned programs with our loader's mark, the maps that they use, and what they are attached to.
    """
    found = copy.deepcopy(known) if known else manifest.empty(pin_dir)
    pins = _pins(pin_dir, host)
    programs = {path: pin.program for path, pin in pins.items() if pin.program and pin.program.digest}
    recorded = {path for entry in found["programs"].values() for path in entry.get("pins", {}).values()}
    if set(programs) - recorded:
        found["programs"][NAME] = _entry(programs, pins)
    for entry in _attached(programs, pins, host):
        if not any(_same(entry, other) for other in found["attachments"]):
            found["attachments"].append(entry)
    return found


def _same(one: Dict[str, Any], other: Dict[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("program", *hooks.KINDS))


def _pins(pin_dir: str, host: Snapshot) -> Dict[str, Pin]:
    if not mounts.bpffs_holding(pin_dir, host.mounts) or not os.path.isdir(pin_dir):
        return {}
    found = [objects.at(os.path.join(pin_dir, name)) for name in sorted(os.listdir(pin_dir))]
    return {pin.path: pin for pin in found if pin}


def _entry(programs: Dict[str, Program], pins: Dict[str, Pin]) -> Dict[str, Any]:
    used = {number for program in programs.values() for number in program.map_ids}
    maps = {path: pin.id for path, pin in pins.items() if pin.kind == "map" and pin.id in used}
    return {
        "pins": {os.path.basename(path): path for path in programs},
        "map_pins": {os.path.basename(path): path for path in maps},
        "program_ids": {os.path.basename(path): program.id for path, program in programs.items()},
        "program_tags": {},
        "map_ids": {os.path.basename(path): number for path, number in maps.items()},
        **dict.fromkeys(("object_sha256", "source_digest", "digest", "compiler", "src", "layout_version")),
        "defines": {},
        "config": {},
        "max_entries": {},
    }


def _attached(programs: Dict[str, Program], pins: Dict[str, Pin], host: Snapshot) -> List[Dict[str, Any]]:
    placed = {path: hook for path, one in programs.items() for hook in [_hook(one)] if hook}
    on_cgroups = {path: programs[path].id for path, hook in placed.items() if hook.kind == CGROUP}
    found = _on_cgroups(on_cgroups, host)
    entries = [_record(path, placed[path], number, cgroup) for path, cgroup, number in found]
    used = {number for one in programs.values() for number in one.map_ids}
    sockets = [pin for pin in pins.values() if pin.map and pin.map.type in attachments.MAP_TYPES]
    for path, hook in placed.items():
        # A program need not use the map that it is attached to; one that is not attached has nothing to be taken off.
        maps = [pin.path for pin in sockets if hook.kind == MAP and pin.id in used]
        entries += [_record(path, hook, programs[path].id, map_pin) for map_pin in maps]
        if hook.kind == NETNS and _is_here(programs[path].id, host):
            entries.append(_record(path, hook, programs[path].id, netns.HERE))
    return entries


def _is_here(program_id: int, host: Snapshot) -> bool:
    """Whether it is attached to this network namespace: of others nobody knows a name."""
    own = netns.inode(netns.HERE)
    return any(info.program_id == program_id and info.netns_ino == own for info in host.links)


def _hook(program: Program) -> Optional[hooks.Hook]:
    with libbpf.program_by_id(program.id) as descriptor:
        return attachments.hook_of(descriptor)


def _on_cgroups(programs: Dict[str, int], host: Snapshot) -> Iterator[Tuple[str, str, int]]:
    """Each program's pin and the cgroups that have it."""
    if not programs:
        return
    root = cgroups.resolve("/", host.mounts)
    for count, (directory, _names, _files) in enumerate(os.walk(root)):
        if count > _MOST_CGROUPS:
            return
        with attachments.opened(CGROUP, directory) as target:
            number = cgroups.cgroup_id(directory) or 0
            found = [attachments.attached(hook, target, number, host.links)[0] for hook in hooks.of_kind(CGROUP)]
        here = {each.program_id for one in found for each in one}
        yield from ((path, directory, number) for path, number in programs.items() if number in here)


def _record(path: str, hook: hooks.Hook, number: int, target: str) -> Dict[str, Any]:
    return {
        "program": path,
        "program_id": number,
        **{kind: target if kind == hook.kind else None for kind in hooks.KINDS},
        "cgroup_id": None,
        "map_id": None,
        "netns_ino": None,
        "attach_type": hook.name,
        "method": LINK,
        "link_pin": None,
        "link_id": None,
        "needs": None,
        "met": None,
    }
