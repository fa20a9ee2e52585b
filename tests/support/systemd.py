# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for systemctl where no systemd runs. Of unit files it knows what it has read at the last reload."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, List

#: The units of the timer for metrics; none of them has a cgroup here.
METRICS = "sockredir-metrics."
PROGRAM = """#!/bin/sh
exec "{python}" "{this}" "{state}" "$@"
"""


class Systemd:
    """Services that run in cgroups of their own, and a systemctl in ``directory``/bin.

    :param home: the slice that their own unit files name.
    :ivar broken: the services that fail to start while they are in this slice.
    """

    def __init__(
        self, directory: Path, unit_dir: Path, cgroup2: Path, services: List[str], home: str = "system.slice"
    ) -> None:
        self.directory, self.state_file = directory, directory / "systemd.json"
        command = directory / "bin" / "systemctl"
        command.parent.mkdir()
        command.write_text(PROGRAM.format(python=sys.executable, this=os.path.abspath(__file__), state=self.state_file))
        command.chmod(0o755)
        system = dict.fromkeys(services, home)
        state = {"unit_dir": str(unit_dir), "cgroup2": str(cgroup2), "broken": [], "broken_in": "", "calls": []}
        state.update(active=[], home=home, slice=system, runs_in=dict(system))
        self.state_file.write_text(json.dumps(state))

    @property
    def state(self) -> Dict[str, Any]:
        return json.loads(self.state_file.read_text())

    def break_in(self, slice_name: str, *services: str) -> None:
        """Have services fail to start in a slice."""
        self.state_file.write_text(json.dumps({**self.state, "broken": list(services), "broken_in": slice_name}))

    def calls(self) -> List[List[str]]:
        """What has been asked for since the last time, questions apart."""
        state = self.state
        self.state_file.write_text(json.dumps({**state, "calls": []}))
        return [words for words in state["calls"] if words[0] not in ("show", "list-unit-files")]


def _reload(state: Dict[str, Any]) -> None:
    """The last drop-in by name counts."""
    for name in state["slice"]:
        drop_ins = sorted(Path(state["unit_dir"], f"{name}.d").glob("*.conf"))
        lines = [line for path in drop_ins for line in path.read_text().splitlines() if line.startswith("Slice=")]
        state["slice"][name] = lines[-1][6:] if lines else state["home"]


def _path(slice_name: str) -> str:
    """Of its cgroup: a slice is in those that its name begins with (systemd.slice(5))."""
    words = slice_name[: -len(".slice")].split("-")
    return "/".join("-".join(words[: count + 1]) + ".slice" for count in range(len(words)))


def _cgroup(state: Dict[str, Any], name: str) -> str:
    where = state["runs_in"].get(name)
    return f"/{_path(where)}/{name}" if where else ""


def _move(state: Dict[str, Any], name: str, to: str) -> None:
    for slice_name in {state["runs_in"][name], to} - {"system.slice", ""}:
        directory = Path(state["cgroup2"], _path(slice_name), name)
        if slice_name == to:
            directory.mkdir(parents=True, exist_ok=True)
        elif directory.is_dir():
            directory.rmdir()
    state["runs_in"][name] = to


def _restart(state: Dict[str, Any], names: List[str]) -> int:
    for name in names:
        fails = name in state["broken"] and state["slice"][name] == state["broken_in"]
        _move(state, name, "" if fails else state["slice"][name])
        if fails:
            sys.stderr.write(f"Job for {name} failed because the control process exited with error code.\n")
            return 1
    return 0


def _show(state: Dict[str, Any], words: List[str]) -> None:
    if "FragmentPath" in words[1]:
        print("FragmentPath=")
    names = words[words.index("--") + 1 :]
    blocks = [
        f"Id={name}\nLoadState={'loaded' if name in state['slice'] else 'not-found'}\n"
        f"ControlGroup={_cgroup(state, name)}\nSlice={state['slice'].get(name, '')}\n"
        f"ActiveState={'active' if name in state['active'] else 'inactive'}\n"
        for name in names
    ]
    print("\n".join(blocks))


def main(state_file: str, words: List[str]) -> int:
    """What the stand-in does for a command line."""
    state = json.loads(Path(state_file).read_text())
    words = [word for word in words if word not in ("--no-ask-password", "--no-pager")]
    state["calls"].append(words)
    code = 0
    if words[0] == "show":
        _show(state, words)
    elif words[0] == "list-unit-files":
        print("\n".join(f"{name} disabled enabled" for name in ["getty@.service", *state["slice"]]))
    elif words[0] == "daemon-reload":
        _reload(state)
    elif words[-1].startswith(METRICS):
        state["active"] = [name for name in state["active"] if not name.endswith(".timer")]
        if words[0] != "stop":
            state["active"] += [name for name in words[2:] if name.endswith(".timer")]
    elif words[0] == "restart" or (words[0] == "start" and words[-1].endswith(".service")):
        code = _restart(state, words[2:])
    elif words[0] == "start":
        Path(state["cgroup2"], _path(words[2])).mkdir(parents=True, exist_ok=True)
        state["active"].append(words[2])
    elif words[0] == "stop" and words[-1].endswith(".service"):
        _move(state, words[-1], "")
    elif words[0] == "stop":
        state["active"] = [name for name in state["active"] if name != words[2]]
        directory = Path(state["cgroup2"], _path(words[2]))
        if directory.is_dir():
            directory.rmdir()
    Path(state_file).write_text(json.dumps(state))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
