# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action ``ebpf.sockredir.fleet_report``: runs on the controller, once, and talks to no host."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timezone
from json import dumps
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils.collection import collection_version
from ..plugin_utils.hostvars import OUTCOME, of_hosts
from ..plugin_utils.report.build import Report, build, one_line
from ..plugin_utils.report.host import STATUSES
from ..plugin_utils.report.junit import to_junit
from ..plugin_utils.report.page import to_page
from ..plugin_utils.report.query import QueryError, query
from ..plugin_utils.rollout import share, tally


def _to_json(report: Report) -> str:
    return dumps(report, indent=2, ensure_ascii=False) + "\n"


#: File suffix and writer of each format.
_FORMATS: Dict[str, Tuple[str, Callable[[Report], str]]] = {
    "json": (".json", _to_json),
    "junit": (".xml", to_junit),
    "html": (".html", to_page),
}


class ActionModule(ActionBase):
    """Builds the report from what was registered for each host of the play."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        super().run(tmp, task_vars)
        _given, options = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "name": {"type": "str", "default": "sockredir-audit"},
                "title": {"type": "str", "default": "sockredir audit"},
                "register": {"type": "str", "default": "sockredir_audit"},
                "formats": {"type": "list", "elements": "str", "choices": list(_FORMATS), "default": list(_FORMATS)},
                "query": {"type": "str", "default": ""},
                "rollout": {
                    "type": "dict",
                    "options": {"budget": {"type": "str", "required": True}, "why": {"type": "str", "default": ""}},
                },
            }
        )
        task_vars = task_vars or {}
        report = build(
            of_hosts(task_vars, task_vars["ansible_play_hosts_all"], options["register"]).items(),
            datetime.now(timezone.utc),
            title=options["title"],
            generator=collection_version(),
            rollout=_rollout(task_vars, options["rollout"]),
        )
        files = [] if self._task.check_mode else self._write(report, options)
        return {
            "changed": False,
            "summary": one_line(report),
            "totals": report["totals"],
            "rollout": report["rollout"],
            "hosts": {
                status: [host["name"] for host in report["hosts"] if host["status"] == status] for status in STATUSES
            },
            "files": files,
            "answer": _answer(report, options["query"]),
        }

    def _write(self, report: Report, options: Mapping[str, Any]) -> List[str]:
        folder = Path(options["path"]).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return [
                _replace(folder / f"{options['name']}{suffix}", writer(report))
                for suffix, writer in (_FORMATS[chosen] for chosen in options["formats"])
            ]
        except OSError as error:
            raise AnsibleActionFail(
                f"the report cannot be written to {folder} on the controller: {error.strerror}; set path"
            ) from error


def _rollout(task_vars: Mapping[str, Any], options: Optional[Mapping[str, Any]]) -> Optional[Dict[str, Any]]:
    """What the hosts' facts say of the rollout that this is the report of; None in an audit."""
    if not options:
        return None
    found = of_hosts(task_vars, task_vars["ansible_play_hosts_all"], OUTCOME)
    outcomes = {host: outcome for host, outcome in found.items() if outcome}
    changed = [each for each in outcomes.values() if each["outcome"] not in ("already", "cannot")]
    state = tally(changed, share(options["budget"], len(found), "sockredir_rollout_budget"))
    why = options["why"] or state.why_stop
    return {
        "state": "stopped" if why else "finished",
        "why": why,
        "budget": state.budget,
        "spent": state.spent,
        "batches": max((each.get("batch") or 0 for each in changed), default=0),
        "outcomes": outcomes,
    }


def _answer(report: Report, expression: str) -> Any:
    try:
        return query(report, expression) if expression else None
    except QueryError as error:
        raise AnsibleActionFail(str(error)) from None


def _replace(path: Path, text: str) -> str:
    """Write a file so that a reader sees the old one or the new one, never a part; returns its path."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
    return str(path)
