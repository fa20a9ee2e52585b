# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of what tests set up in a sandbox on the host: its paths, what is pinned there, modules run in it."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, ContextManager, Dict, Tuple

from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import objects

from .host import Sandbox, inside
from .module import run_module


class Harness:
    """A sandbox in use. What it keeps is closed with it.

    :param sandbox: what the test may change.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._kept = contextlib.ExitStack()

    @property
    def places(self) -> Dict[str, str]:
        """Options of every module that changes a host."""
        return {"pin_dir": str(self.sandbox.pin_dir), "state_dir": str(self.sandbox.state_dir)}

    def path(self, name: str) -> str:
        """Of a pin."""
        return str(self.sandbox.pin_dir / name)

    def pins(self) -> Dict[str, Tuple[str, int]]:
        """Name -> kind and id of all that is pinned."""
        if not self.sandbox.pin_dir.is_dir():
            return {}
        found = {name: objects.at(self.path(name)) for name in sorted(os.listdir(self.sandbox.pin_dir))}
        return {name: (pin.kind, pin.id) for name, pin in found.items()}

    @staticmethod
    def must(module: str, check: bool = False, **options: Any) -> Dict[str, Any]:
        """The result of a module that has to succeed."""
        result = run_module(module, options, check=check)
        assert not result["failed"], (module, result)
        return result

    def inside(self) -> ContextManager[None]:
        """Inside the context, this process is in the cgroup."""
        return inside(self.sandbox.cgroup)

    def keep(self, thing: Any) -> Any:
        """Have it closed with the sandbox; a socket gets a timeout, so that a test fails instead of hanging."""
        if isinstance(thing, socket.socket):
            thing.settimeout(20)
        return self._kept.enter_context(thing)

    def close(self) -> None:
        self._kept.close()
