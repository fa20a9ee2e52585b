# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests on the live kernel: each in a cgroup, a bpffs and a state directory of its own."""

from __future__ import annotations

import os

import pytest
from support.host import cgroup2_mount, sandbox
from support.versions import compiled


def pytest_runtest_setup(item):
    reason = _why_not()
    if reason:
        pytest.skip(reason)


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root"
    try:
        cgroup2_mount()
    except FileNotFoundError as error:
        return str(error)
    return ""


@pytest.fixture
def host(tmp_path):
    """A sandbox on the host for this test alone; see :class:`support.host.Sandbox`."""
    with sandbox(tmp_path) as own:
        yield own


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Version -> object of the shipped programs; see :mod:`support.versions`."""
    return compiled(tmp_path_factory.mktemp("objects"))
