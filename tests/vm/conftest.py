# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of what makes virtual machines: real qemu, and nothing of it may be left."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from support.machines import TOOLS, Tool


def pytest_runtest_setup(item):
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


@pytest.fixture
def vm(tmp_path):
    """Runs the tool on a cache of the test's own; afterwards no qemu of that cache may be left."""
    used = Tool(tmp_path)
    yield used
    leftovers = used.qemus()
    for pid in leftovers:
        os.kill(pid, signal.SIGKILL)
    assert not leftovers
