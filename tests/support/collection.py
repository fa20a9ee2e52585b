# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes ``ansible_collections.ebpf.sockredir`` mean this checkout, wherever it lies."""

from __future__ import annotations

import pkgutil
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def _package(name: str, path: list) -> None:
    module = types.ModuleType(name)
    module.__path__ = path
    sys.modules[name] = module
    parent, _dot, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def map_collection() -> None:
    """Make the collection importable; does nothing if ansible-test has done so."""
    name = "ansible_collections.ebpf.sockredir"
    try:
        found = list(__import__(name, fromlist=["_"]).__path__)
    except ImportError:
        found = []
    if any(Path(path).resolve() == ROOT for path in found):
        return  # ansible-test's own loader knows the checkout
    for shadow in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
        del sys.modules[shadow]
    if "ansible_collections" not in sys.modules:
        _package("ansible_collections", pkgutil.extend_path([], "ansible_collections"))
    if "ansible_collections.ebpf" not in sys.modules:
        _package("ansible_collections.ebpf", [])
    _package(name, [str(ROOT)])
