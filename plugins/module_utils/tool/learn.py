# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl learn``: what the programs of this host do on their connections, and what that means for each port."""

from __future__ import annotations

import argparse
import os
from typing import Optional

from ..errors import SockredirError
from ..learn import learning, report
from . import context


def learn(state_dir: str, options: argparse.Namespace) -> int:
    """Watch, judge, show.

    :param options: ``seconds``, ``cgroup``, ``form`` (``text``, ``json`` or ``vars``), ``source`` (the C source or
        object of the programs that watch; None: what the role has brought), ``wait``, ``estimate``.
    """
    source = options.source or _brought(state_dir)
    redirection = None if options.estimate else _beside(source)
    wanted = learning.Options(source, options.seconds, options.cgroup, options.wait, state_dir, redirection)
    found = learning.of_host(wanted, context.say)
    if options.form == "json":
        context.show_json(found)
    else:
        context.show(report.yaml(found["variables"]) if options.form == "vars" else report.table(found, context.size))
    return context.OK


def _brought(state_dir: str) -> str:
    directory = os.path.join(state_dir, "src")
    found = _first(directory, "learn")
    if not found:
        raise SockredirError(
            f"the learning programs are not in {directory}", "run the role, or name learn.bpf.c with --source"
        )
    return found


def _beside(source: str) -> str:
    """The programs that redirect, in the same directory."""
    directory = os.path.dirname(source)
    return _first(directory, "sockredir") or os.path.join(directory, "sockredir.bpf.c")


def _first(directory: str, name: str) -> Optional[str]:
    """An object if there is one, else the source, else None."""
    paths = [os.path.join(directory, f"{name}.bpf.{kind}") for kind in "oc"]
    return next((path for path in paths if os.path.exists(path)), None)
