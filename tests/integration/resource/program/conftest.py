# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of sockmap_program share."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from support.harness import Harness
from support.host import Sandbox
from support.module import run_module

SOURCES = Path(__file__).resolve().parent / "c"


class Pair(Harness):
    """A copy of the test's program pair, and the module run on it."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        super().__init__(sandbox)
        shutil.copytree(SOURCES, directory)
        self.src = directory / "pair.bpf.c"
        self.options = {
            "name": "pair",
            "src": str(self.src),
            **self.places,
        }

    def run(self, check=False, prefix=(), env=None, **options):
        """Run the module; an option of None is left out."""
        options = {key: value for key, value in {**self.options, **options}.items() if value is not None}
        return run_module("sockmap_program", options, check=check, prefix=prefix, env=env)

    def edit(self, old, new):
        """Change the source."""
        text = self.src.read_text()
        assert old in text
        self.src.write_text(text.replace(old, new))

    def state(self):
        """All files in the state directory but the lock, with their content."""
        root = self.sandbox.state_dir
        if not root.is_dir():
            return {}
        paths = [path for path in sorted(root.rglob("*")) if path.name != "lock"]
        return {
            str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
            for path in paths
        }

    def everything(self):
        """What must be as before if nothing is to change."""
        return self.pins(), self.state()

    @contextlib.contextmanager
    def attached(self):
        """The programs attached, in the plainest way, for the length of the block."""
        with contextlib.ExitStack() as stack:
            sockops = stack.enter_context(libbpf.get(str(self.sandbox.pin_dir / "sockops")))
            verdict = stack.enter_context(libbpf.get(str(self.sandbox.pin_dir / "verdict")))
            peers = stack.enter_context(libbpf.get(str(self.sandbox.pin_dir / "peers")))
            cgroup = stack.enter_context(libbpf.Fd(os.open(self.sandbox.cgroup, os.O_RDONLY)))
            libbpf.attach(verdict, peers, libbpf.ATTACH_SK_MSG_VERDICT)
            stack.callback(libbpf.detach, verdict, peers, libbpf.ATTACH_SK_MSG_VERDICT)
            libbpf.attach(sockops, cgroup, libbpf.ATTACH_CGROUP_SOCK_OPS, libbpf.F_ALLOW_MULTI)
            stack.callback(libbpf.detach, sockops, cgroup, libbpf.ATTACH_CGROUP_SOCK_OPS)
            yield


@pytest.fixture
def pair(host, tmp_path):
    return Pair(host, tmp_path / "src")
