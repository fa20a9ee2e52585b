# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl learn``: what the programs of this host do on their connections, and what that means for each port."""

from __future__ import annotations

import os
from typing import Optional

from ..errors import SockredirError
from ..learn import learning, report
from . import context

#: What the role brings to the host; an object first, where one was brought.
_SOURCES = ("learn.bpf.o", "learn.bpf.c")


def learn(state_dir: str, seconds: float, cgroup: Optional[str], form: str, source: Optional[str], wait: float) -> int:
    """Watch, judge, show.

    :param form: ``text``, ``json`` or ``vars``.
    :param source: the C source or object of the programs; None: what the role has brought.
    """
    found = learning.of_host(source or _brought(state_dir), seconds, cgroup, wait, context.say)
    if form == "json":
        context.show_json(found)
    else:
        context.show(report.yaml(found["variables"]) if form == "vars" else report.table(found, context.size))
    return context.OK


def _brought(state_dir: str) -> str:
    directory = os.path.join(state_dir, "src")
    for name in _SOURCES:
        if os.path.exists(os.path.join(directory, name)):
            return os.path.join(directory, name)
    raise SockredirError(
        f"the programs that learn are not in {directory}", "run the role, or name learn.bpf.c with --source"
    )
