# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples name what is there: variables of the role and the rollout, with values they take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.collection import ROOT

EXAMPLES = ROOT / "examples"
OPTIONS = yaml.safe_load((ROOT / "roles/sockredir/meta/argument_specs.yml").read_text())["argument_specs"]["main"][
    "options"
]
ROLLOUT = set(re.findall(r"^\| `(sockredir_\w+)` \|", (ROOT / "docs/rollout.md").read_text(), re.MULTILINE))
INVENTORY = Path(sys.executable).with_name("ansible-inventory")


def test_the_survey_asks_for_variables_that_are_there():
    survey = json.loads((EXAMPLES / "awx/survey.json").read_text())
    for question in survey["spec"]:
        assert question["variable"] in ROLLOUT | set(OPTIONS)
        assert question["type"] in ("text", "integer", "multiplechoice")
        if question["variable"] in OPTIONS and "choices" in question:
            assert question["choices"] == OPTIONS[question["variable"]]["choices"]
            assert question["default"] == OPTIONS[question["variable"]]["default"]


def test_the_rollout_reads_each_documented_variable():
    files = [*(ROOT / "playbooks").glob("rollout*"), *(ROOT / "playbooks").glob("*/rollout*")]
    text = "\n".join(file.read_text() for file in files)
    assert {name for name in ROLLOUT if name not in text} == set()


@pytest.mark.skipif(not INVENTORY.exists(), reason="needs ansible-core beside this Python")
def test_the_inventory_sets_variables_of_the_role():
    done = subprocess.run(
        [str(INVENTORY), "-i", str(EXAMPLES / "inventory"), "--list"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    hosts = found["_meta"]["hostvars"]
    assert len(hosts) == 20 + 3 + 4
    assert hosts["db03.example.com"]["sockredir_mode"] == "observe"
    assert hosts["db03.example.com"]["sockredir_memory_budget"] == "32 MiB"
    assert "legacy.example.com" not in hosts  # it has no variable
    assert sorted(found["canaries"]["hosts"]) == ["db03.example.com", "web01.example.com"]
    for variables in hosts.values():
        for name in (name for name in variables if name.startswith("sockredir_")):
            assert name in OPTIONS
            assert variables[name] in OPTIONS[name].get("choices", [variables[name]])
