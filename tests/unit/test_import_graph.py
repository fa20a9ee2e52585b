# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom in the library: rooms on floors, no arrow upward, no circle, and pure plans."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Dict, Iterator, Set

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "plugins" / "module_utils"

#: From the ground up. A room imports from floors below its own, and from itself.
FLOORS = (
    {"errors"},
    {"distribution", "atomic_file", "command", "installed_bytecode"},
    {"change", "kernel", "state"},
    {"compile", "datapath"},
    {"host"},
    {"calibration"},
    {"resource", "learn"},
    {"operation"},
    {"host_report"},
    {"tool"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts).replace(".__init__", "")


PATHS = {
    dotted(path): path for path in sorted(LIBRARY.rglob("*.py")) if path.parent != LIBRARY or path.stem != "__init__"
}


def imported(name: str) -> Iterator[str]:
    """What a module imports of the library, lazily or not; in a package also what its ``__init__`` imports."""
    path = PATHS[name]
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                full = ".".join([*base, alias.name])
                yield full if full in PATHS else ".".join(base)


GRAPH: Dict[str, Set[str]] = {name: {one for one in imported(name) if one in PATHS} for name in PATHS}


def reached(name: str) -> Set[str]:
    """All that is imported with a module."""
    found: Set[str] = set()
    waiting = [name]
    while waiting:
        for one in GRAPH[waiting.pop()] - found:
            found.add(one)
            waiting.append(one)
    return found


def room(name: str) -> str:
    return name.split(".")[0]


def is_pure(name: str) -> bool:
    return name.endswith((".plan", "_plan")) or name == "operation.drift_kinds"


def test_every_room_has_a_floor():
    assert {room(name) for name in PATHS} == set(FLOOR)


def test_no_arrow_goes_upward():
    wrong = [
        (name, one)
        for name, ones in GRAPH.items()
        for one in ones
        if room(name) != room(one) and FLOOR[room(one)] >= FLOOR[room(name)]
    ]
    assert wrong == []


def test_there_is_no_circle():
    assert [name for name in PATHS if name in reached(name)] == []


PURE = sorted(name for name in PATHS if is_pure(name))


@pytest.mark.parametrize("name", PURE)
def test_a_plan_neither_looks_nor_acts(name):
    """Not the ctypes binding, and no observe or apply of a resource."""
    impure = [
        one
        for one in reached(name)
        if one.startswith(("kernel.libbpf", "kernel.bindings"))
        or one.endswith((".observe", ".apply", ".change", ".snapshot", "change.transaction"))
    ]
    assert impure == []


def test_there_are_plans():
    assert len(PURE) >= 8


def test_the_kernels_room_knows_nothing_of_hosts_or_plans():
    found = {room(one) for name in PATHS if room(name) == "kernel" for one in reached(name)}
    assert found <= {"kernel", "errors", "distribution"}


def test_only_one_package_talks_to_libbpf():
    users = [name for name, ones in GRAPH.items() if "kernel.bindings.binding" in ones]
    assert users
    assert all(name == "kernel.libbpf" or name.startswith("kernel.bindings.") for name in users)
    loaders = [name for name, path in PATHS.items() if "ctypes.CDLL(LIBRARY" in path.read_text(encoding="utf-8")]
    assert loaders == ["kernel.bindings.binding"]


def test_the_library_imports_only_itself_and_the_standard_library():
    """The installed package has no Ansible: an absolute import must be of Python's own modules."""
    for name, path in PATHS.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [one for one in names if one.startswith(("ansible", "sockredir"))], name
