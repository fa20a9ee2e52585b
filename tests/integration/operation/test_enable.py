# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enable, look, enable again, disable."""

import os


def test_enable_twice_and_disable(managed):
    before = managed.listing()
    first = managed.enable()
    assert [result["changed"] for result in first] == [True] * 5
    assert first[-1]["committed"]
    assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout
    ids = {name: managed.id(name) for name in ("sockops", "verdict", "peers", "flows", "settings")}
    assert [result["changed"] for result in managed.enable()] == [False] * 5
    assert ids == {name: managed.id(name) for name in ids}
    gone = managed.disable()
    assert gone["changed"]
    assert gone["draining"] == []
    assert gone["remaining"] == []
    assert managed.listing() == before
    assert not managed.disable()["changed"]
    assert not os.path.exists(managed.sandbox.state_dir)
