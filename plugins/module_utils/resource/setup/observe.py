# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Observe settings, library, launcher, unit and drop-ins. Reads only."""

from __future__ import annotations

from typing import List, NamedTuple, Optional

from ...datapath import live
from ...host import files, install, systemd
from ...state import manifest
from ..metrics import observe as metrics_observe
from ..services import observe as services_observe
from ..services import plan as services_plan
from ..snapshot import Snapshot
from .plan import Observed, Wanted


class Paths(NamedTuple):
    """Where things are on this host."""

    pin_dir: str
    state_dir: str
    unit_dir: str


def observe(wanted: Wanted, paths: Paths, host: Snapshot) -> Observed:
    """What is there of it; reads only."""
    document = host.document
    known = set(wanted.files) | set(_old_files(document, wanted))
    return Observed(
        document=document,
        damage=host.damage,
        previous_damage=host.previous_damage,
        settings=live.read_settings(paths.pin_dir),
        package=install.installed(wanted.places),
        stale=install.stale(wanted.places),
        files={path: files.read(path) for path in sorted(known)},
        services=services_observe.observe(wanted.services, host) if wanted.services else services_plan.Observed(),
        metrics=metrics_observe.observe(document, paths.unit_dir, wanted.unit.get("metrics")),
    )


def _old_files(document: Optional[manifest.Manifest], wanted: Wanted) -> List[str]:
    """What an earlier run has put on the host, the library apart, and what belongs to rules of interception."""
    if document is None:
        return []
    old_package = document["unit"].get("package", wanted.places.package)
    ours = [path for path in document["files"] if not systemd.is_of_rules(path)]
    return [path for path in ours if not path.startswith((old_package + "/", wanted.places.package + "/"))]
