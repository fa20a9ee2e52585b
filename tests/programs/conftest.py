# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real programs, as the distribution packages them: what they do is the same on plain TCP and in every mode."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

from conform.runner import KernelLog
from programs.base.place import place
from programs.base.ways import WAYS
from programs.base.work import Comparison
from support.host import cgroup2_mount

_UNREAD = Path(__file__).resolve().parent / "clients" / "unread.py"


def pytest_addoption(parser):
    parser.addoption("--scale", type=float, default=1.0, help="factor on the size of the work")
    parser.addoption("--patience", type=float, default=1.0, help="factor on time-outs")
    parser.addoption("--ways", default=",".join(WAYS), help="which of them, with commas between (default: all)")


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(name): of docs/limits.md, which the kernel may impose on a program")


def pytest_generate_tests(metafunc):
    if "way" in metafunc.fixturenames:
        names = metafunc.config.option.ways.split(",")
        metafunc.parametrize("way", [WAYS[name] for name in names], ids=names, scope="module", indirect=True)


def pytest_runtest_setup(item):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    cgroup2_mount()


@pytest.fixture(scope="session", autouse=True)
def _kernel_log():
    """The kernel must not have complained meanwhile."""
    with KernelLog() as kernel:
        yield
        complaints = kernel.complaints()
    assert not complaints


@contextlib.contextmanager
def _site(request, shared, way):
    """A place with the module's servers in it."""
    option = request.config.option
    with place(way is not None, shared, option.patience, option.scale) as own:
        if way:
            own.redirection.set(**way.first)
        with request.module.serve(own) as site:
            yield own, site


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What the module's servers need and is made once."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def plain(request, shared):
    """The servers on plain TCP, and what each work gave there: by test."""
    with _site(request, shared, None) as (_own, site):
        yield site, {}


@pytest.fixture(scope="module")
def way(request, shared):
    """The servers in one way: (Way, Place, what the module's ``serve`` gave)."""
    with _site(request, shared, request.param) as (own, site):
        yield request.param, own, site


@pytest.fixture(scope="session")
def limits(tmp_path_factory):
    """Those of docs/limits.md that programs meet on this kernel, found by trying."""
    with place(True, tmp_path_factory.mktemp("limits")) as own:
        own.redirection.set()
        unread = int(own.must([sys.executable, str(_UNREAD)], wait=300))
        assert own.redirection.events("redirected") == 1
    return [] if unread == 100 else ["fionread"]


@pytest.fixture(autouse=True)
def _within_limits(request, limits, way):
    """Where the kernel makes it impossible, the limit is named instead."""
    imposed = [marker.args[0] for marker in request.node.iter_markers("limit") if marker.args[0] in limits]
    if imposed and way[0].redirects:
        pytest.skip(f"limit {imposed[0]}, which this kernel imposes: docs/limits.md")


@pytest.fixture
def same(request, plain, way):
    """Call it with a function that does work on a site and returns what has to be the same as on plain TCP."""
    params = {name: value for name, value in request.node.callspec.params.items() if name != "way"}
    return Comparison(f"{request.node.originalname} {params}", plain, way)
