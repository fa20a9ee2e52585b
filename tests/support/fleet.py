# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet on one machine: inventory hosts that share the kernel and nothing else.

Each host has a directory on one bpffs, a cgroup, a state directory, a prefix and a unit directory of its own, and is
reached by a local connection: the modules are the real ones and so are the programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Type, TypeVar

from support.host import cgroup2_mount, remove_cgroup

ROOT = Path(__file__).resolve().parents[2]
#: An interpreter as a target has it, not the one that runs the tests.
TARGET_PYTHON = "/usr/bin/python3"


class Fleet:
    """So many hosts below a directory.

    :param base: directory for everything but cgroups; on it a bpffs is mounted.
    :param size: number of hosts, named h001, h002 ...
    :param losable: whether hosts can be lost, see connection/losable.py.
    """

    def __init__(self, base: Path, size: int, losable: bool = False) -> None:
        self.base = base
        self.names = [f"h{number:03}" for number in range(1, size + 1)]
        self.losable = losable
        self.cgroup = f"sockredir-fleet-{os.getpid()}-{base.name}"
        self.bpffs = base / "bpf"
        self.lost = base / "lost"
        self.inventory = base / "inventory.json"
        #: Variables of all hosts, beside those of :meth:`variables`.
        self.common: Dict[str, Any] = {}

    def set_up(self) -> None:
        for folder in (self.bpffs, self.lost):
            folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "bpf", "bpf", str(self.bpffs)], check=True)
        Path(cgroup2_mount(), self.cgroup).mkdir()
        for name in self.names:
            Path(self.home(name), "units").mkdir(parents=True)
        collections = self.base / "collections" / "ansible_collections" / "ebpf"
        collections.mkdir(parents=True)
        (collections / "sockredir").symlink_to(ROOT)
        self.write_inventory({})

    def tear_down(self) -> None:
        """Everything goes: pins first, as the programs leave their cgroups with the last reference."""
        subprocess.run(["umount", "--lazy", str(self.bpffs)], check=False)
        remove_cgroup(Path(cgroup2_mount(), self.cgroup))

    def home(self, name: str) -> Path:
        return self.base / "hosts" / name

    def pin_dir(self, name: str) -> Path:
        return self.bpffs / name

    def state_dir(self, name: str) -> Path:
        return self.home(name) / "state"

    def cgroup_of(self, name: str) -> Path:
        return Path(cgroup2_mount(), self.cgroup, name)

    def variables(self, name: str) -> Dict[str, Any]:
        return {
            "ansible_connection": "losable" if self.losable else "local",
            "losable_dir": str(self.lost),
            "ansible_python_interpreter": TARGET_PYTHON,
            "sockredir_pin_dir": str(self.pin_dir(name)),
            "sockredir_state_dir": str(self.state_dir(name)),
            "sockredir_cgroup": f"{self.cgroup}/{name}",
            "sockredir_prefix": str(self.home(name) / "usr"),
            "sockredir_unit_dir": str(self.home(name) / "units"),
            "sockredir_persist": False,
            # So many maps at once have to be small.
            "sockredir_max_flows": 256,
            # Hosts that share a CPU cannot measure at the same time.
            "sockredir_demote_below": 30000,
        }

    def write_inventory(self, extra: Dict[str, Dict[str, Any]], groups: Optional[Dict[str, List[str]]] = None) -> None:
        """:param extra: further variables per host, :param groups: further groups."""
        hosts = {name: {**self.variables(name), **self.common, **extra.get(name, {})} for name in self.names}
        children = {group: {"hosts": dict.fromkeys(names)} for group, names in (groups or {}).items()}
        document = {"all": {"hosts": hosts, "children": children}}
        self.inventory.write_text(json.dumps(document), encoding="utf-8")

    def lose(self, name: str, once: Path = Path("/"), says: str = "No route to host") -> None:
        """The host is lost, from the moment on when that path exists, and the connection says so."""
        (self.lost / name).write_text(f"{once}\n{says}", encoding="utf-8")

    def find_again(self, name: str) -> None:
        (self.lost / name).unlink(missing_ok=True)

    def interpreter(self, name: str, prepare: str) -> str:
        """A Python for this host that runs in a mount namespace of its own.

        :param prepare: shell commands, run in it first; what they mount and export only this host's modules see.
        :returns: str, for ``ansible_python_interpreter``.
        """
        path = self.home(name) / "python"
        command = f'set -- {TARGET_PYTHON} "$@"; {prepare}; exec "$@"'
        path.write_text(f'#!/bin/sh\nexec unshare --mount sh -e -c {shlex.quote(command)} sh "$@"\n', encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def environment(self) -> Dict[str, str]:
        # A local module inherits what ssh would not bring: with PYTHONUNBUFFERED Python reads it byte by byte.
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {
            **own,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.base / "collections"),
            "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def command(self, playbook: str, *options: str) -> List[str]:
        path = Path(playbook) if os.path.isabs(playbook) else ROOT / "playbooks" / playbook
        return [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.inventory), str(path), *options]

    def play(self, playbook: str, *options: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the collection (a name), or any (a path)."""
        return subprocess.run(
            self.command(playbook, *options),
            env=self.environment(),
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


AnyFleet = TypeVar("AnyFleet", bound=Fleet)


@contextlib.contextmanager
def local_fleet(base: Path, size: int, losable: bool = False, kind: Type[AnyFleet] = Fleet) -> Iterator[AnyFleet]:
    fleet = kind(base, size, losable)
    try:
        fleet.set_up()
        yield fleet
    finally:
        fleet.tear_down()
