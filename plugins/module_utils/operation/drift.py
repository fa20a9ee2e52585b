# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the whole host with its manifest. Reads only.

Apart from what makes changes, and interception only where it is: an audit asks every host of a fleet, and what is
imported there is its cost.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

from ..change.step import Plan
from ..datapath import live
from ..errors import SockredirError
from ..host import files, install
from ..kernel import hooks
from ..kernel.hooks import CGROUP
from ..kernel.model import Attached
from ..resource.attachment import observe as attachment_observe
from ..resource.attachment import plan as attachment_plan
from ..resource.program import planned
from ..resource.settings import plan as settings_plan
from ..resource.snapshot import Snapshot
from ..state import manifest, store
from . import drift_kinds

Document = manifest.Manifest


class Comparison(NamedTuple):
    """A host beside its manifest.

    :ivar document: what can be understood of the manifest; None if there is none.
    :ivar steps: what it would take to make the host what the manifest says, each with its kind of drift.
    :ivar foreign: other programs on the accelerated cgroups, by cgroup.
    """

    document: Optional[Document]
    steps: Plan
    foreign: Dict[str, List[Attached]]


def with_manifest(host: Snapshot) -> Comparison:
    """How a host differs from its manifest; reads only.

    :raises SockredirError: the kernel does not let us look.
    """
    document, damage = host.document, host.damage
    steps: Plan = []
    if damage:
        steps.append(drift_kinds.refused("manifest", damage, "manifest_changed"))
    foreign: Dict[str, List[Attached]] = {}
    if document is not None:
        steps += _manifest_drift(host, document)
        for name in document["programs"]:
            steps += _program_drift(host, document, name)
        for entry in attachment_observe.ordered(document):
            found, others = _attachment_drift(host, document, entry)
            steps += found
            if others:
                foreign.setdefault(entry["cgroup"], []).extend(others)
        steps += _settings_drift(document) + _file_drift(document) + _intercept_drift(document, host)
        foreign = without_own(foreign, document)
    return Comparison(document, steps, foreign)


def without_own(foreign: Dict[str, List[Attached]], document: Document) -> Dict[str, List[Attached]]:
    """Those that are no program of the manifest either: interception and redirection share hooks of a cgroup."""
    programs = document["programs"].values() if manifest.ids_valid(document) else ()
    own = {number for entry in programs for number in entry["program_ids"].values()}
    kept = {path: [each for each in found if each.program_id not in own] for path, found in foreign.items()}
    return {path: found for path, found in kept.items() if found}


def _manifest_drift(host: Snapshot, document: Document) -> Plan:
    steps: Plan = []
    state_dir = host.state_dir
    if not document["committed"] and not host.damage:
        steps.append(drift_kinds.refused("manifest", "a change was not finished", "unfinished"))
    problem = host.previous_damage
    if problem:
        steps.append(drift_kinds.refused("manifest: previous", problem, "object_changed"))
    for digest in manifest.objects(document):
        try:
            store.get(state_dir, digest)
        except SockredirError as error:
            steps.append(drift_kinds.refused(store.path(state_dir, digest), error.message, "object_changed"))
    return steps


def _program_drift(host: Snapshot, document: Document, name: str) -> Plan:
    same_boot = manifest.ids_valid(document)
    try:
        with planned.recorded(name, document, host) as found:
            steps = found.steps
    except SockredirError as error:
        return [drift_kinds.refused(f"program {name}", error.message, "pin_replaced")]
    # What is wrong with an object is said above, for each.
    return drift_kinds.name_drift(drift_kinds.PROGRAM, [step for step in steps if step.verb != "store"], same_boot)


def _attachment_drift(host: Snapshot, document: Document, entry: Dict[str, Any]) -> Any:
    try:
        wanted = attachment_observe.wanted_of(entry)._replace(check=True)
        observed = attachment_observe.observe(wanted, host)
        steps = attachment_plan.plan(wanted, observed)
    except SockredirError as error:
        return [drift_kinds.refused(hooks.target(entry)[1], error.message, "program_replaced")], []
    others = attachment_plan.foreign(wanted, observed) if wanted.kind == CGROUP else []
    return drift_kinds.name_drift(hooks.recorded(entry).name, steps, manifest.ids_valid(document)), others


def _settings_drift(document: Document) -> Plan:
    try:
        found = live.read_settings(document["pin_dir"])
    except SockredirError as error:
        return [drift_kinds.refused("settings", error.message, "settings_changed")]
    # Without the map that is missing, not what it would say.
    return settings_plan.steps(document["settings"], found) if found and document["settings"] else []


def _intercept_drift(document: Document, host: Snapshot) -> Plan:
    if not document.get("intercepts") and not live.is_pinned(document["pin_dir"], "intercepts"):
        return []
    from . import drift_intercept

    return drift_intercept.rules(document) + drift_intercept.surroundings(document, host)


def _file_drift(document: Document) -> Plan:
    recorded = document["files"]
    found = _library(document["unit"].get("prefix"))
    found.update({path: files.read(path) for path in recorded if path not in found})
    return drift_kinds.file_drift(recorded, found, document["unit"])


def _library(prefix: Optional[str]) -> Dict[str, Optional[files.File]]:
    """The installed Python files, those that the manifest does not record included."""
    if not prefix:
        return {}
    places = install.Places(prefix)
    top = places.package
    return {f"{top}/{name}": files.File(text) for name, text in install.installed(places).items()}
