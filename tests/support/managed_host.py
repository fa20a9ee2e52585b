# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A complete host in a sandbox on this one, as fixtures: the real programs, modules in the role's order, the tool."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import Plan
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import objects
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.model import Pin
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import drift, states
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation.drift_kinds import reported
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import change as attachment
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.snapshot import Snapshot
from ansible_collections.ebpf.sockredir.plugins.modules import sockredir_host

from .collection import ROOT
from .harness import Harness
from .host import Sandbox, sandbox
from .module import run_module

#: What the role says that a program needs of the kernel.
NEEDS = {"receive": {"needs": "one_queue"}}


class ManagedHost(Harness):
    """Runs the modules as the role does, on a sandbox on the host."""

    def __init__(self, sandbox: Sandbox, directory: Path, objects_of: Dict[str, Path]) -> None:
        super().__init__(sandbox)
        self.directory = directory
        self.objects_of = objects_of
        self.options: Dict[str, Any] = {}

    @property
    def prefix(self) -> Path:
        return self.directory / "prefix"

    @property
    def unit_dir(self) -> Path:
        return self.directory / "units"

    @property
    def host_places(self) -> Dict[str, str]:
        return {**self.places, "prefix": str(self.prefix), "unit_dir": str(self.unit_dir)}

    def tasks(self, version: str = "v1", method: str = "auto", **options: Any) -> List[tuple]:
        """The role's tasks on a host: module and arguments."""
        pins, cgroup = str(self.sandbox.pin_dir), options.get("cgroup", str(self.sandbox.cgroup))
        state_dir = {"state_dir": str(self.sandbox.state_dir)}
        program = {
            "name": "sockredir",
            "src": str(self.objects_of[version]),
            "max_entries": {"flows": 4096, "peers": 8192},
        }
        on_map = [
            {"program": f"{pins}/{name}", "map": f"{pins}/peers", "method": method, **NEEDS.get(name, {})}
            for name in self.on_map(version)
        ]
        sockops = {"program": f"{pins}/sockops", "cgroup": cgroup, "create_cgroup": True, "method": method}
        host = {"cgroup": cgroup, "persist": False, "demote_below": 30000, **self.options, **options}
        return [
            ("sockmap_program", {**program, **self.places}),
            *(("sockmap_attach", {**each, **state_dir}) for each in on_map),
            ("sockmap_attach", {**sockops, **state_dir}),
            ("sockredir_host", {**host, **self.host_places}),
        ]

    @staticmethod
    def on_map(version: str) -> List[str]:
        """The programs that a version attaches to the map."""
        return ["verdict"] if version == "v0" else ["receive", "verdict"]

    def enable(self, version: str = "v1", check: bool = False, method: str = "auto", **options: Any) -> List[Dict]:
        """Run the role's tasks; every one has to succeed."""
        return [self.must(module, check, **given) for module, given in self.tasks(version, method, **options)]

    def host(self, check: bool = False, **options: Any) -> Dict[str, Any]:
        """Run sockredir_host alone."""
        usual = {"cgroup": str(self.sandbox.cgroup), "persist": False, "demote_below": 30000}
        given = {**usual, **self.options, **options, **self.host_places}
        return run_module("sockredir_host", given, check=check)

    def disable(self, check: bool = False) -> Dict[str, Any]:
        return self.host(check, state="absent")

    def ctl(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess:
        """Run the installed tool."""
        command = [str(self.prefix / "sbin" / "sockredirctl"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def status(self) -> Dict[str, Any]:
        done = self.ctl("status", "--json")
        return json.loads(done.stdout)

    def kinds(self) -> List[str]:
        """The kinds of drift that status names."""
        return sorted({each["kind"] for each in self.status()["drift"]})

    @property
    def pin_names(self) -> List[str]:
        """The maps of the shipped pair."""
        with open(ROOT / "bpf" / "dialect" / "maps.h", encoding="utf-8") as text:
            return re.findall(r'^}} (\w+) SEC\("\.maps"\);'.replace("}}", "}"), text.read(), re.MULTILINE)

    # The same in this process, which is faster, and can be watched and killed.

    def here(self, state: str = "present", **options: Any) -> Dict[str, Any]:
        """Options of sockredir_host, as its module would pass them on."""
        defaults = {name: spec.get("default") for name, spec in sockredir_host.ARGUMENTS.items()}
        usual = {"memory_budget": "16 MiB", "persist": False, "demote_below": 30000}
        return {**defaults, "cgroup": str(self.sandbox.cgroup), **usual, **options, "state": state, **self.host_places}

    def enable_here(self, version: str = "v1", check: bool = False, watch: Any = None, **options: Any) -> List[Plan]:
        """The role's tasks; the plan of each."""
        pins, cgroup = str(self.sandbox.pin_dir), str(self.sandbox.cgroup)
        state_dir, entries = str(self.sandbox.state_dir), {"flows": 1024, "peers": 2048}
        request = program_source.Options(
            "sockredir", pins, state_dir, str(self.objects_of[version]), max_entries=entries
        )
        on_map = [
            Wanted(f"{pins}/{name}", "map", f"{pins}/peers", check=check, **NEEDS.get(name, {}))
            for name in self.on_map(version)
        ]
        sockops = Wanted(f"{pins}/sockops", "cgroup", cgroup, create_cgroup=True, check=check)
        plans = [program.present(request, check, watch).plan]
        plans += [attachment.ensure(wanted, state_dir, watch).steps for wanted in (*on_map, sockops)]
        return [*plans, states.present(self.here(**options), check, watch).steps]

    def disable_here(self, watch: Any = None) -> states.Outcome:
        return states.absent(self.here("absent"), False, watch)

    def drift_here(self) -> List[Dict[str, Any]]:
        return reported(drift.with_manifest(Snapshot(str(self.sandbox.state_dir))).steps)

    def pin(self, name: str) -> Optional[Pin]:
        return objects.at(str(self.sandbox.pin_dir / name))

    def id(self, name: str) -> int:
        found = self.pin(name)
        assert found, name
        return found.id

    def listing(self) -> List[str]:
        """All that is ours to see: pins and files, relative."""
        found = []
        for top in (self.sandbox.pin_dir, self.sandbox.state_dir, self.prefix, self.unit_dir):
            for path in sorted(top.rglob("*")) if top.exists() else []:
                if path.is_dir() and not path.is_symlink():
                    continue
                found.append(f"{top.name}/{path.relative_to(top)}")
        return [path for path in found if "__pycache__" not in path]


@contextlib.contextmanager
def _set_up_in(own: Sandbox, directory: Path, built: Dict[str, Path]) -> Iterator[ManagedHost]:
    made = ManagedHost(own, directory, built)
    made.unit_dir.mkdir()
    try:
        yield made
    finally:
        made.disable_here()


@pytest.fixture
def managed(host, tmp_path, built):
    """A host on which nothing is set up yet, and nothing is left afterwards."""
    with _set_up_in(host, tmp_path, built) as made:
        yield made


@pytest.fixture(scope="module")
def enabled(tmp_path_factory, built):
    """A host that is enabled, for the tests of a file that leave it as it is."""
    directory = tmp_path_factory.mktemp("enabled")
    with sandbox(directory) as own, _set_up_in(own, directory, built) as made:
        made.enable_here()
        yield made
