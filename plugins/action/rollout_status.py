# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``ebpf.sockredir.rollout_status``: runs on the controller, once per batch, and talks to no host."""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils.hostvars import OUTCOME, of_hosts
from ..plugin_utils.rollout import RolloutError, batches, progress, share, tally


class ActionModule(ActionBase):
    """Counts the outcomes so far, and says whether the batch may begin."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        super().run(tmp, task_vars)
        _given, options = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "list", "elements": "str", "required": True},
                "fleet": {"type": "int", "required": True},
                "budget": {"type": "str", "required": True},
                "serial": {"type": "list", "elements": "str", "required": True},
                "started": {"type": "float", "required": True},
            }
        )
        try:
            return _status(task_vars or {}, options)
        except RolloutError as error:
            raise AnsibleActionFail(str(error)) from None


def _status(task_vars: Mapping[str, Any], options: Mapping[str, Any]) -> Dict[str, Any]:
    outcomes = of_hosts(task_vars, options["hosts"], OUTCOME)
    state = tally(outcomes.values(), share(options["budget"], options["fleet"], "sockredir_rollout_budget"))
    play = list(task_vars["ansible_play_hosts_all"])
    sizes = batches(options["serial"], len(play))
    batch = _number(sizes, play.index(task_vars["ansible_play_batch"][0]))
    return {
        "changed": False,
        "stop": state.why_stop is not None,
        "why": state.why_stop,
        "spent": state.spent,
        "batch": batch,
        "batches": len(sizes),
        "size": sizes[batch - 1],
        "progress": progress(state, time.time() - options["started"]),
    }


def _number(sizes: list, position: int) -> int:
    """Which batch, counted from 1, the host at this position of the play is in."""
    end = 0
    for number, size in enumerate(sizes, 1):
        end += size
        if position < end:
            return number
    return len(sizes)
