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


#: Names that a playbook or a role gives a value: by a key, or by ``register``.
_GIVEN = re.compile(r"^\s*(?:- )?(?:register: (sockredir_\w+)|(sockredir_\w+):.*)$", re.MULTILINE)


def test_the_role_knows_each_name_that_is_given_a_value():
    root = ROLE.parents[1]
    files = [*root.glob("playbooks/**/*.yml"), *root.glob("roles/*/tasks/*.yml")]
    given = {one or other for file in files for one, other in _GIVEN.findall(file.read_text())}
    assert {"sockredir_rollout_batch_number", "sockredir_info"} <= given
    others = re.compile(f"sockredir_({'|'.join(load('vars/main.yml')['__sockredir_other_names'])})$")
    assert [name for name in sorted(given) if not others.match(name) and name not in load("defaults/main.yml")] == []


@pytest.mark.parametrize("name", ["sockredir_port", "sockredir_intercept", "sockredir_service", "sockredir_modes"])
def test_the_role_does_not_know_a_misspelt_name(name):
    others = re.compile(f"sockredir_({'|'.join(load('vars/main.yml')['__sockredir_other_names'])})$")
    assert not others.match(name)
    assert name not in load("defaults/main.yml")
