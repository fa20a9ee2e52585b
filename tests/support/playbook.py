# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a playbook of this checkout against this machine and keeps what each task returned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence

from .collection import ROOT

#: Actions that run on the controller only.
_LOCAL = {
    "ansible.builtin." + name
    for name in ("assert", "debug", "fail", "include_tasks", "include_role", "include_vars", "set_fact", "meta")
} | {"ansible.builtin.validate_argument_spec"}


@dataclass(frozen=True)
class Played:
    """What a run of ``ansible-playbook`` did.

    :param tasks: each with ``task``, ``action``, ``status``, ``seconds`` and ``result``.
    """

    code: int
    output: str
    tasks: List[Dict[str, Any]]

    @property
    def changed(self) -> List[str]:
        return [task["task"] for task in self.tasks if task["result"].get("changed")]

    @property
    def failed(self) -> List[str]:
        return [task["task"] for task in self.tasks if task["status"] in ("failed", "unreachable")]

    @property
    def touches(self) -> List[Dict[str, Any]]:
        """The tasks that ran on the host."""
        return [task for task in self.tasks if task["status"] != "skipped" and task["action"] not in _LOCAL]

    def result(self, name: str) -> Dict[str, Any]:
        """What the last task of that name returned."""
        return next(
            task["result"] for task in reversed(self.tasks) if task["task"] == name and task["status"] != "skipped"
        )

    def ok(self) -> Played:
        """Itself; AssertionError with the output where the run failed."""
        assert self.code == 0, self.output
        assert not self.failed, self.output
        return self


def play(
    name: str, variables: Dict[str, Any], options: Sequence[str] = (), prefix: Sequence[str] = (), timeout: float = 300
) -> Played:
    """Run ``playbooks/NAME`` with ``--diff``.

    :param prefix: words before the command, such as ``("unshare", "--mount")``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        collections = Path(scratch, "ansible_collections", "ebpf")
        collections.mkdir(parents=True)
        (collections / "sockredir").symlink_to(ROOT)
        record = Path(scratch, "record")
        record.touch()
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": scratch,
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
            "SOCKREDIR_TEST_RECORD": str(record),
        }
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "--diff", *options]
        command += ["--extra-vars", json.dumps(variables), str(ROOT / "playbooks" / name)]
        done = subprocess.run(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
        tasks = [json.loads(line) for line in record.read_text().splitlines()]
    return Played(done.returncode, done.stdout, tasks)
