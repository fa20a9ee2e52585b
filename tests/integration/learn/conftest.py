# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One learn over a process that behaves in every way that matters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import programs
from support import datapath
from support.learning import SOURCE

_COMPILED = "SOCKREDIR_COMPILED"


@pytest.fixture(scope="session")
def learn_object(tmp_path_factory) -> str:
    """The compiled programs, so that a run begins at once; on hosts without clang those of a given directory."""
    if os.environ.get(_COMPILED):
        return str(Path(os.environ[_COMPILED], "learn.bpf.o"))
    path = tmp_path_factory.mktemp("learn") / "learn.bpf.o"
    path.write_bytes(programs.build(str(SOURCE)))
    return str(path)


@pytest.fixture(scope="session")
def redirection_beside(learn_object) -> str:
    """The same, with the programs that redirect beside it."""
    beside = Path(learn_object).with_name("sockredir.bpf.o")
    if not beside.exists():
        beside.write_bytes(programs.build(str(datapath.SOURCE)))
    return learn_object
