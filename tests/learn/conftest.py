# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers and clients side by side in one place, and one learn that watches them all."""

from __future__ import annotations

import os

import pytest
from programs.base.place import place
from support.host import cgroup2_mount


def pytest_configure(config):
    # Of the tests whose servers are used here.
    config.addinivalue_line("markers", "limit(name): of docs/limits.md, which the kernel may impose on a program")


def pytest_runtest_setup(item):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    cgroup2_mount()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What takes long to make, for both places."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def plain(shared):
    """Plain TCP, in a cgroup and a network namespace of its own."""
    with place(False, shared) as own:
        yield own


@pytest.fixture(scope="module")
def redirected(shared):
    """The same with the programs attached."""
    with place(True, shared) as own:
        yield own
