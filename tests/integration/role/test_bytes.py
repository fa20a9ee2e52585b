# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A redirected pair and a plain one side by side: what arrives is what was sent."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support import pump

GIB = 1 << 30


@pytest.fixture(scope="module")
def enabled(site):
    site.enable().ok()
    return site


@pytest.mark.parametrize("pair", ["ipv4", "ipv6", "v4-mapped"])
def test_a_gibibyte_each(enabled, pair):
    command = [sys.executable, pump.__file__, pair, str(GIB)]
    both = [enabled.ctl("exec", *command), command]
    running = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True) for one in both]
    try:
        redirected, plain = (json.loads(process.communicate(timeout=240)[0]) for process in running)
    finally:
        for process in running:
            process.kill()
    assert redirected["sent"] == redirected["received"]
    assert plain["sent"] == plain["received"]
    assert redirected["sent"] != plain["sent"]
    assert plain["by_tcp"] == GIB
    assert redirected["by_tcp"] < GIB
