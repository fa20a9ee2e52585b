# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that the library runs."""

from __future__ import annotations

import sys

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.command import run
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError


def python(source: str) -> list:
    return [sys.executable, "-c", source]


def test_what_it_wrote_and_how_it_ended(tmp_path):
    source = "import os, sys; print(os.getcwd(), os.environ['LC_ALL'], sys.stdin.read()); sys.exit('no')"
    done = run(python(source), 60, str(tmp_path), b"given")
    assert (done.stdout, done.stderr, done.returncode) == (f"{tmp_path} C given\n".encode(), b"no\n", 1)


def test_nothing_to_read_is_an_empty_input():
    assert run(python("import sys; print(len(sys.stdin.read()))"), 60).stdout == b"0\n"


def test_a_program_that_is_not_there():
    with pytest.raises(SockredirError, match="cannot run /nowhere/program: No such file or directory"):
        run(["/nowhere/program"], 60)


def test_a_program_that_does_not_end():
    with pytest.raises(SockredirError, match="did not end within 1 s"):
        run(python("import time; time.sleep(600)"), 1)
