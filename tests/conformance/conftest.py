# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conformance cases under pytest: the programs of this checkout, loaded for the session in cgroups of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from conform import redirection
from conform.runner import Bench, KernelLog


def pytest_addoption(parser):
    parser.addoption("--scale", type=float, default=1.0, help="size of the heavy conformance cases")
    parser.addoption("--patience", type=float, default=1.0, help="factor on the conformance cases' hang bounds")


@pytest.fixture(scope="session")
def bench(request):
    """Runs cases; at its end the kernel must not have complained."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it loads programs and makes cgroups and network namespaces")
    options = request.config.option
    with redirection.own(redirection.compiled()) as (plain, loaded), KernelLog() as kernel:
        opened = Bench(plain, loaded, options.scale, options.patience)
        yield opened
        opened.close()
        complaints = kernel.complaints()
    assert not complaints
