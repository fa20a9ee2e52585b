# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enable, look, enable again, disable."""

import os


def test_enable_twice_and_disable(whole):
    before = whole.listing()
    first = whole.enable()
    assert [result["changed"] for result in first] == [True] * 5
    assert first[-1]["committed"]
    assert whole.ctl("status").returncode == 0, whole.ctl("status").stdout
    ids = {name: whole.id(name) for name in ("sockops", "verdict", "peers", "flows", "settings")}
    assert [result["changed"] for result in whole.enable()] == [False] * 5
    assert ids == {name: whole.id(name) for name in ids}
    gone = whole.disable()
    assert gone["changed"]
    assert gone["draining"] == []
    assert gone["remaining"] == []
    assert whole.listing() == before
    assert not whole.disable()["changed"]
    assert not os.path.exists(whole.corner.state_dir)
