# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Java: readers that ask how much there is before they read, and an event loop."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

_SOURCE = Path(__file__).resolve().parent / "clients" / "Reader.java"
_LONGEST = 30
_COUNTS = {"ready": 4000, "available": 400, "selector": 300}


@contextlib.contextmanager
def serve(place):
    place.prepared("classes", lambda classes: place.must(["javac", "-d", str(classes), str(_SOURCE)], wait=120))
    yield place


def _read(place, how):
    seconds = str(int(_LONGEST * place.patience))
    count = str(place.scaled(_COUNTS[how], 60))
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    return place.run(["java", *options, "-cp", "classes", "Reader", how, count, seconds], wait=2 * _LONGEST)


@pytest.mark.limit("fionread")
@pytest.mark.parametrize("how", ["ready", "available"])
def test_careful_reader(same, how):
    same(lambda place: _read(place, how))


def test_event_loop(same):
    same(lambda place: _read(place, "selector"))
