# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole role in a sandbox on the host: own cgroup, pins, state, tool and units."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from support.harness import Harness
from support.host import Sandbox, cgroup2_mount, remove_cgroup, sandbox
from support.netns import netns as make_netns
from support.playbook import Played, play


class Site(Harness):
    """A host as the role sees it."""

    def __init__(self, own: Sandbox, directory: Path) -> None:
        super().__init__(own)
        self.directory = directory
        self.cgroup = cgroup2_mount() / f"{own.cgroup.name}.slice"
        # Every host has these.
        usual = ("prefix", "prefix/lib", "prefix/sbin", "prefix/share", "prefix/share/man", "units")
        self.as_usual = [str(directory / name) for name in usual]
        for name in self.as_usual:
            Path(name).mkdir()
        self.tool = directory / "prefix" / "sbin" / "sockredirctl"
        self.variables = {
            "sockredir_cgroup": self.cgroup.name,
            "sockredir_pin_dir": str(own.pin_dir),
            "sockredir_state_dir": str(own.state_dir),
            "sockredir_prefix": str(directory / "prefix"),
            "sockredir_unit_dir": str(directory / "units"),
            # What is measured differs from run to run; test_calibration.py takes it out.
            "sockredir_demote_below": 30000,
        }

    def play(self, name: str, *options: str, variables: Optional[Dict[str, Any]] = None, **how: Any) -> Played:
        return play(f"{name}-sockredir.yml", {**self.variables, **(variables or {})}, options, **how)

    def enable(self, *options: str, **how: Any) -> Played:
        return self.play("enable", *options, **how)

    def disable(self, *options: str, **how: Any) -> Played:
        return self.play("disable", *options, **how)

    def ctl(self, *words: str) -> List[str]:
        """The command line of the on-host tool."""
        return [str(self.tool), *words]

    def ask(self, *words: str) -> Any:
        """What the tool says, as JSON."""
        done = subprocess.run(self.ctl(*words, "--json"), capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def traces(self) -> List[str]:
        """Everything of this site that can be seen on the host."""
        places = [self.sandbox.pin_dir, self.sandbox.state_dir, self.directory / "prefix", self.directory / "units"]
        found = [str(path) for place in places for path in [place, *place.rglob("*")] if os.path.lexists(path)]
        found = [path for path in found if path not in self.as_usual]
        return sorted(found) + ([str(self.cgroup)] if self.cgroup.exists() else [])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site that the tests of a module share, in the order they are written."""
    directory = tmp_path_factory.mktemp("site")
    with sandbox(directory) as own:
        here = Site(own, directory)
        try:
            yield here
        finally:
            if here.traces():
                here.disable()
            remove_cgroup(here.cgroup)


@pytest.fixture(scope="module")
def netns():
    """A network namespace whose loopback device is quiet."""
    with make_netns() as own:
        yield own
