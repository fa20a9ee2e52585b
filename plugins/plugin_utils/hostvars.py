# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions of the fleet share: the hosts' variables, as plain data."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping

#: The fact that a rollout keeps of each host: outcome, batch, why, canary.
OUTCOME = "sockredir_rollout"


def plain(value: Any) -> Any:
    """Ansible's lazy and tagged containers as plain ones, so that nothing is templated or looked up twice."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def of_hosts(task_vars: Mapping[str, Any], hosts: Iterable[str], variable: str) -> Dict[str, Any]:
    """One variable of each host; None if it has none."""
    hostvars = task_vars["hostvars"]
    return {str(host): plain(hostvars[host].get(variable)) for host in hosts}
