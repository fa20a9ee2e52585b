# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests' own sandbox on the host leaves nothing behind."""

from __future__ import annotations

import os

from support.host import sandbox


def test_a_sandbox_is_real_and_goes_away(tmp_path):
    with sandbox(tmp_path) as own:
        (own.cgroup / "inner").mkdir()
        assert (own.cgroup / "cgroup.procs").exists()
        assert os.path.ismount(own.bpffs)
        own.pin_dir.mkdir()
    assert not own.cgroup.exists()
    assert not os.path.ismount(own.bpffs)
    assert not own.state_dir.exists()
