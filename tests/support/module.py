# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one module of this checkout in a process of its own and returns what it returned."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Dict, Optional

from .collection import ROOT

_RUNNER = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
from support.collection import map_collection
map_collection()
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    runpy.run_module("ansible_collections.ebpf.sockredir.plugins.modules." + sys.argv[2], run_name="__main__")
"""


def run_module(
    name: str,
    args: Dict[str, Any],
    check: bool = False,
    env: Optional[Dict[str, str]] = None,
    timeout: float = 120,
    prefix: tuple = (),
) -> Dict[str, Any]:
    """Run a module with ``--diff``, and with ``--check`` when asked.

    :param name: the module's short name.
    :param prefix: words before the interpreter, such as ``("unshare", "--net")``.
    :returns: its result; ``failed`` is always there.
    :raises AssertionError: when it printed anything but one JSON document.
    """
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _RUNNER, str(ROOT / "tests"), name],
        input=json.dumps({**args, "_ansible_check_mode": check, "_ansible_diff": True}),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        check=False,
    )
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{name} printed no JSON:\n{done.stdout}\n{done.stderr}") from None
    result.setdefault("failed", False)
    return result
