# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual page, and what the shells complete, asked of the shells themselves."""

import re
import shutil
import subprocess

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import install
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation.disable_plan import MARK
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool import documents, main, words

PLACES = install.Places("/p")
MADE = documents.made(PLACES, "/srv/state")

# Types the words, the last of them not finished, and prints what bash offers.
ASK = """\
source /dev/stdin 3<&0
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_sockredirctl 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(*typed):
    bash = ["bash", "--norc", "-c", ASK, "bash", "sockredirctl", *typed]
    done = subprocess.run(bash, input=MADE[PLACES.bash_completion].text, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["st"], ["status"]),
        (["re"], ["restore"]),
        (["--state-dir", "/x", "ro"], ["rollback"]),
        (["-v", "counters", "--p"], ["--prometheus"]),
        (["mode", ""], ["-h", "--help", "--wait", "enforce", "observe", "drain"]),
        (["mode", "--wait", ""], []),
        (["exec", "--us"], ["--user"]),
        (["exec", "--user", ""], []),
    ],
)
def test_bash_offers(typed, expected):
    assert offered(*typed) == expected


@pytest.mark.parametrize("typed", [["exec", "tru"], ["exec", "--", "tru"], ["exec", "--user", "nobody", "tru"]])
def test_bash_offers_programs(typed):
    assert "true" in offered(*typed)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine")
def test_zsh_understands_it(tmp_path):
    path = tmp_path / "_sockredirctl"
    path.write_text(MADE[PLACES.zsh_completion].text, encoding="utf-8")
    subprocess.run(["zsh", "-n", str(path)], check=True)


def test_every_verb_and_option_is_in_each_document():
    parser = main.parser()
    for verb in words.verbs(parser):
        for file in MADE.values():
            assert verb.name in file.text
            for name in (name for option in verb.options for name in option.names):
                assert name.replace("-", "\\-") in file.text or name in file.text, (verb.name, name)


def test_disabling_knows_them_without_a_manifest():
    assert all(MARK in file.text for file in MADE.values())


def test_the_manual_names_the_state_directory_of_this_host():
    assert "/srv/state" in MADE[PLACES.manual].text


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff on this machine")
def test_the_manual_is_right_roff():
    roff = ["groff", "-man", "-ww", "-Tutf8"]
    done = subprocess.run(roff, input=MADE[PLACES.manual].text, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    purpose = (main.parser().description or "").rstrip(".")
    plain = re.sub(".\b|\x1b\\[[0-9;]*m", "", done.stdout)  # bold is overstruck, or coloured
    shown = " ".join(plain.replace("\u2010", "-").split())
    assert f"sockredirctl - {purpose[:1].lower()}{purpose[1:]} SYNOPSIS" in shown
