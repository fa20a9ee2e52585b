# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the journal is told over the life of a host."""

from __future__ import annotations

import os

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change import journal
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import mode, restore
from support.journal import Journal


def test_the_life_of_a_host_in_the_journal(managed, tmp_path, monkeypatch):
    state_dir = str(managed.sandbox.state_dir)
    with Journal(tmp_path / "socket") as reader:
        monkeypatch.setattr(journal, "SOCKET", str(reader.path))

        def told():
            return [(entry["SOCKREDIR_ACTION"], entry["SOCKREDIR_RESULT"]) for entry in reader.entries()]

        managed.enable_here(check=True)
        assert told() == []
        managed.enable_here()
        assert told() == [("load", "done"), *[("attach", "done")] * 3, ("enable", "done")]
        managed.enable_here()
        assert told() == []

        os.unlink(managed.sandbox.pin_dir / "counters")
        restore.restore(state_dir)
        (entry,) = reader.entries()
        assert entry["MESSAGE"] == "restore: pin_missing"
        assert str(managed.sandbox.pin_dir / "counters") in entry["SOCKREDIR_STEPS"]

        mode.set_mode(state_dir, "observe")
        managed.enable_here("v2", mode="drain")
        restore.rollback(state_dir)
        actions = [action for action, _result in told()]
        assert actions == ["mode", "load", *["attach"] * 3, "enable", "rollback"]

        (managed.sandbox.state_dir / "current").resolve().write_text("{")
        with pytest.raises(SockredirError):
            restore.restore(state_dir)
        (entry,) = reader.entries()
        assert (entry["SOCKREDIR_ACTION"], entry["PRIORITY"]) == ("restore", "3")
        assert entry["MESSAGE"].startswith("restore failed: ")

        managed.disable_here()
        assert told() == [("disable", "done")]
