# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role ships as one file compiles without a warning, which an operator would see."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import bcc, compilers
from support.collection import ROOT


@pytest.mark.parametrize("name", ["sockredir", "intercept", "learn"])
def test_no_warnings(tmp_path, name):
    path = tmp_path / f"{name}.bpf.c"
    path.write_text(bcc.flatten(str(ROOT / "bpf" / path.name)))
    assert compilers.compile_clang(str(path), {}).warnings == ""
