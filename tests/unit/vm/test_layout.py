# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State of two checkouts never meets."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmtool import layout


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/ann"}, "/home/ann/.cache/sockredir-vm"),
        ({"HOME": "/home/ann", "XDG_CACHE_HOME": "/big"}, "/big/sockredir-vm"),
        ({"HOME": "/home/ann", "XDG_CACHE_HOME": ""}, "/home/ann/.cache/sockredir-vm"),
        ({"HOME": "/home/ann", "XDG_CACHE_HOME": "relative"}, "/home/ann/.cache/sockredir-vm"),
    ],
)
def test_the_cache_directory(environ, expected):
    assert layout.cache_dir(environ) == Path(expected)


def test_checkouts_of_one_name_are_told_apart():
    one, other = (layout.state_dir(Path(place), "default", {}) for place in ("/a/sockredir", "/b/sockredir"))
    assert one != other
    assert one.name == other.name == "default"
