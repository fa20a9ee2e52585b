# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's key changes with all that changes the image, and with nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vmtool.errors import VmError
from vmtool.suites import Recipe, suite_named

PLAIN = Recipe(suite_named("bookworm"), files={"/etc/a": "1"})


@pytest.mark.parametrize(
    "change",
    [
        {"suite": suite_named("trixie")},
        {"packages": ("clang",)},
        {"mirrors": ("file:///mirror",)},
        {"files": {"/etc/a": "2"}},
        {"files": {"/etc/b": "1"}},
        {"version": PLAIN.version + 1},
    ],
)
def test_what_changes_the_key(change):
    assert replace(PLAIN, **change).key != PLAIN.key


@pytest.mark.parametrize("packages", [("python3",), ("udev", "udev")])
def test_packages_that_the_base_has_change_nothing(packages):
    assert replace(PLAIN, packages=packages).key == PLAIN.key


def test_the_order_of_packages_does_not_matter():
    assert replace(PLAIN, packages=("a", "b")).key == replace(PLAIN, packages=("b", "a", "b")).key


def test_the_key_names_the_suite():
    assert PLAIN.key.startswith("bookworm-")


def test_an_unknown_suite_lists_the_known():
    with pytest.raises(VmError, match="bookworm, trixie, sid"):
        suite_named("woody")
