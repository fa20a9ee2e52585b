# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's variables are the same in its defaults, its argument specification and its README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROLE = Path(__file__).resolve().parents[3] / "roles" / "sockredir"


def load(path: str):
    return yaml.safe_load((ROLE / path).read_text())


def test_defaults_and_specification_agree():
    options = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert load("defaults/main.yml") == {name: option["default"] for name, option in options.items()}


def test_the_readme_names_each_variable():
    table = (ROLE / "README.md").read_text().split("## Variables")[1].split("**Why")[0]
    first_columns = [line.split("|")[1] for line in table.splitlines() if "|" in line]
    named = re.findall(r"`(sockredir_\w+)`", "\n".join(first_columns))
    assert sorted(named) == sorted(load("defaults/main.yml"))
