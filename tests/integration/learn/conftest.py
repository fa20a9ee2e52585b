# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One learn over a process that behaves in every way that matters."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import watch
from support.learning import SOURCE


@pytest.fixture(scope="session")
def learn_object(tmp_path_factory) -> str:
    """The compiled programs, so that a run begins at once."""
    path = tmp_path_factory.mktemp("learn") / "learn.bpf.o"
    path.write_bytes(watch.build(str(SOURCE)))
    return str(path)
