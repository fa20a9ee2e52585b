# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change the mode of the programs: enforce, observe or drain."""

from __future__ import annotations

from typing import Optional

from ..change import journal
from ..change.step import Plan, Step
from ..change.transaction import Undo, Watch, apply
from ..datapath import live
from ..resource.settings import apply as settings_apply
from ..resource.settings import plan as settings_plan
from ..state import lock, manifest
from .restore import need_manifest, not_enabled


def set_mode(state_dir: str, mode: str, watch: Optional[Watch] = None, wait_seconds: float = lock.WAIT_SECONDS) -> Plan:
    """Enforce, observe or drain, from now on and after a reboot; a rollback does not lead back over it.

    :raises NotEnabled: there is no manifest.
    :raises SockredirError: there is no settings map, or the manifest is damaged; the host is as it was.
    """
    need_manifest(state_dir)
    with journal.change("mode", mode=mode) as done, lock.hold(state_dir, wait_seconds):
        document = manifest.current(state_dir)
        if document is None or not document["settings"]:
            raise not_enabled(state_dir)
        wanted = {**document["settings"], "mode": mode}
        pin_dir = document["pin_dir"]
        steps = settings_plan.steps(wanted, live.read_settings(pin_dir))
        if document["settings"] != wanted:
            steps.append(Step("record", "manifest: mode", document["settings"]["mode"], mode))

        def record(_step: Step) -> Undo:
            manifest.amend(state_dir, lambda changed: changed["settings"].update(mode=mode))
            return None

        def tell(_step: Step) -> Undo:
            return settings_apply.write_settings(pin_dir, state_dir, wanted)

        apply(steps, {"settings": tell, "record": record}, watch)
        done(steps)
        return steps
