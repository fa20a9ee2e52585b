# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockredirctl and users: programs run as somebody else, and what somebody without rights is told."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest
from support.collection import ROOT

_WHO = 'id -u; id -g; id -G; echo "$HOME $SHELL $USER $LOGNAME"; grep 0:: /proc/self/cgroup'
#: Imports all that is asked for while it still may, since the collection may be where other users cannot look.
_WITHOUT_RIGHTS = """
import os, sys
sys.path.insert(0, "tests")
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool.main import main
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
sys.exit(main(sys.argv[1:]))
"""
VERBS = (
    ["status"],
    ["verify"],
    ["counters"],
    ["flows"],
    ["ports"],
    ["top"],
    ["intercepts"],
    ["trace"],
    ["learn"],
    ["exec", "true"],
    ["exec", "--user", "root", "true"],
    ["mode", "drain"],
    ["restore"],
    ["rollback"],
)


def test_exec_as_another_user_is_that_user_in_all_respects(managed):
    managed.enable_here()
    user = pwd.getpwnam("nobody")
    done = managed.ctl("exec", "--user", "nobody", "--", "sh", "-c", _WHO)
    assert done.returncode == 0, done.stderr
    uid, gid, groups, variables, cgroup = done.stdout.splitlines()
    assert (int(uid), int(gid)) == (user.pw_uid, user.pw_gid)
    assert {int(one) for one in groups.split()} == set(os.getgrouplist("nobody", user.pw_gid))
    assert variables == f"{user.pw_dir} {user.pw_shell} nobody nobody"
    assert cgroup.startswith("0::/" + managed.sandbox.cgroup.name)


def test_exec_as_a_user_by_number_cannot_go_back(managed):
    managed.enable_here()
    number = str(pwd.getpwnam("nobody").pw_uid)
    done = managed.ctl("exec", "--user", number, "python3", "-c", "import os; os.setuid(0)")
    assert done.returncode == 1
    assert "PermissionError" in done.stderr


@pytest.mark.parametrize("name", ["nobody-of-this-name", "4294967296", ""])
def test_exec_as_nobody_known_runs_nothing(managed, name):
    managed.enable_here()
    done = managed.ctl("exec", "--user", name, "echo", "ran")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"there is no user {name!r}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_rights_each_verb_says_in_one_line_that_it_needs_root(managed):
    managed.enable_here()
    for words in VERBS:
        command = [sys.executable, "-c", _WITHOUT_RIGHTS, "--state-dir", str(managed.sandbox.state_dir), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
        assert (done.returncode, done.stdout) == (3, ""), words
        assert done.stderr.splitlines() == [f"sockredirctl: {words[0]} needs root; run it as root, or with sudo"]
