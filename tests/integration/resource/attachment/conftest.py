# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small real programs and maps, pinned in a sandbox on the host."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import Any, Dict, List

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.model import Attached
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.harness import Harness
from support.module import run_module

HOOKS = {"cgroup": hooks.SOCK_OPS, "map": hooks.SK_MSG, "receive": hooks.SK_SKB, "netns": hooks.SK_LOOKUP}
# r0 = 1; exit
RETURN_ONE = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)


class Bench(Harness):
    """A sandbox with programs, and the module run on it."""

    return_one = RETURN_ONE

    @property
    def cgroup(self) -> str:
        return str(self.sandbox.cgroup)

    def path(self, name: str) -> str:
        self.sandbox.pin_dir.mkdir(exist_ok=True)
        return super().path(name)

    def program(self, kind: str, name: str = "", pin: bool = True) -> int:
        """Load a program for a place of HOOKS, replace its pin in one step; its id. It lives as long as the test."""
        program = self.keep(self.load(kind, name or kind))
        if pin:
            temporary = self.path((name or kind) + "_new")
            libbpf.pin(program, temporary)
            os.replace(temporary, self.path(name or kind))
        return libbpf.program_info(program).id

    @staticmethod
    def load(kind: str, name: str) -> libbpf.Fd:
        hook = HOOKS[kind]
        return libbpf.load_program(hook.program_type, name, RETURN_ONE, hook.attach_type)

    def map(self, name: str = "peers", map_type: int = libbpf.MAP_TYPE_SOCKHASH) -> int:
        with libbpf.create_map(map_type, name, 4, 8, 4) as created:
            libbpf.pin(created, self.path(name))
            return libbpf.map_info(created).id

    def attach(self, check: bool = False, **options: Any) -> Dict[str, Any]:
        """Run the module; the program is as the kind of its target unless one or several are given."""
        kind = next((kind for kind in hooks.KINDS if kind in options), hooks.MAP)
        program = {} if "programs" in options else {"program": self.path(kind)}
        given = {**program, "state_dir": str(self.sandbox.state_dir), **options}
        return run_module("sockmap_attach", given, check=check)

    def four_times(self, **options: Any) -> Dict[str, Any]:
        """Check changes nothing, real does it, and then nothing is left to do; what real returned."""
        before = self.state()
        said = self.attach(check=True, **options)
        assert not said["failed"], said
        assert said["changed"], said
        assert said["diff"]["before"] != said["diff"]["after"]
        assert self.state() == before
        done = self.attach(**options)
        assert not done["failed"], done
        assert done["changed"]
        after = self.state()
        for check in (False, True):
            again = self.attach(check=check, **options)
            assert not again["failed"], again
            assert not again["changed"], again["diff"]
            assert again["attachment"] == done["attachment"]
        assert self.state() == after
        return done

    def on(self, kind: str, path: str) -> List[Attached]:
        """What the kernel says is attached."""
        hook = HOOKS[kind]
        with attachments.opened(hook.kind, path) as target:
            number = libbpf.map_info(target).id if hook.kind == hooks.MAP else os.fstat(target).st_ino
            return attachments.attached(hook, target, number, attachments.links())[0]

    def manifest(self) -> Any:
        return manifest.current(str(self.sandbox.state_dir))

    def state(self) -> tuple:
        """Everything that an attachment consists of, to compare before and after."""
        pins = sorted(os.listdir(self.sandbox.pin_dir)) if self.sandbox.pin_dir.exists() else []
        exists = os.path.isdir(self.cgroup)
        return (pins, exists, exists and sorted(self.on("cgroup", self.cgroup)), self.manifest())


@pytest.fixture
def bench(host):
    with contextlib.closing(Bench(host)) as own:
        yield own
