# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fixture that makes a fleet on this machine if it can be made."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from support.fleet import local_fleet
from support.host import cgroup2_mount


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root"
    if not shutil.which("clang"):
        return "needs clang"
    if not Path(sys.executable).with_name("ansible-playbook").exists():
        return "needs ansible-core beside this Python"
    try:
        cgroup2_mount()
    except FileNotFoundError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def fleet_of(tmp_path_factory):
    """Makes a fleet of so many hosts that can be lost; all of it goes after the module's last test."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    made = []

    def make(size):
        context = local_fleet(tmp_path_factory.mktemp("fleet"), size, losable=True)
        made.append(context)
        return context.__enter__()

    yield make
    for context in made:
        context.__exit__(None, None, None)
