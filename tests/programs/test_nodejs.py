# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node.js at both ends: bodies that come back in chunks while they are still being sent."""

from __future__ import annotations

import contextlib
from pathlib import Path

_ECHO = str(Path(__file__).resolve().parent / "clients" / "echo.js")
_PORT = 8111


@contextlib.contextmanager
def serve(place):
    with place.serving(["node", _ECHO, "server", str(_PORT)], _PORT):
        yield place


def test_echo(same):
    same(lambda place: place.must(["node", _ECHO, "client", str(_PORT), str(place.scaled(100, 41))]))
