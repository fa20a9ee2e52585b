# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of the set-up's plan, each with its undo."""

from __future__ import annotations

import os
from typing import Dict

from ...change.step import Step
from ...change.transaction import Handler, Undo
from ...host import files, install
from ...state import manifest
from ..metrics import apply as metrics_apply
from ..services import apply as services_apply
from ..settings.apply import write_settings
from . import plan as planning
from .observe import Paths
from .plan import Wanted


def handlers(wanted: Wanted, paths: Paths) -> Dict[str, Handler]:
    """The handler of each verb that :func:`.plan.plan` uses."""
    own = _Handlers(wanted, paths)
    return {
        "settings": own.settings,
        "package": own.package,
        "package_stale": own.package_stale,
        "file": own.file,
        "forget_previous": own.forget_previous,
        "manifest": own.manifest,
        **metrics_apply.handlers(),
        **(own.services.handlers() if own.services else {}),
    }


class _Handlers:
    def __init__(self, wanted: Wanted, paths: Paths) -> None:
        self.wanted = wanted
        self.paths = paths
        self.services = services_apply.Changes(wanted.services) if wanted.services else None

    def settings(self, _step: Step) -> Undo:
        return write_settings(self.paths.pin_dir, self.paths.state_dir, self.wanted.settings)

    def package(self, step: Step) -> Undo:
        return install.install(self.wanted.places, step.need(planning.Library).files)

    def package_stale(self, _step: Step) -> Undo:
        install.remove_stale(self.wanted.places)
        return None

    def file(self, step: Step) -> Undo:
        undo = files.change(step.subject, step.need(planning.Content).file, self._keep(step.subject))
        return self.services.guard(step.subject, undo) if self.services else undo

    def _keep(self, path: str) -> str:
        return keep_of(path, self.paths.unit_dir, self.wanted.places.prefix, *self.wanted.places.shared)

    def forget_previous(self, _step: Step) -> Undo:
        manifest.forget_previous(self.paths.state_dir)
        return None

    def manifest(self, _step: Step) -> Undo:
        manifest.edit(self.paths.state_dir, lambda document: planning.document_after(self.wanted, document))
        if self.wanted.commit:
            manifest.commit(self.paths.state_dir)
        return None


def keep_of(path: str, *roots: str) -> str:
    """The directory, ours or the host's, that stays when a file below it goes: the nearest root, else its own."""
    above = [root for root in roots if path.startswith(root.rstrip("/") + "/")]
    return max(above, key=len, default=os.path.dirname(path))
