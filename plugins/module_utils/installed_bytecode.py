# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports the rest of this package from the zip file that Ansible sends, and compiles each file once or not at all.

zipimport compiles every file twice, first to learn its name and again to run it. A fleet's audit spends most of its
time on a host in that. If the same file is installed on the host, as the library of ``sockredirctl``, its byte code
there is taken. A module calls :func:`install` before it imports anything else of the package.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Optional, Sequence, Tuple
from zipimport import zipimporter

_PACKAGE = __name__.rpartition(".")[0]
_STATE_DIR = "/var/lib/sockredir"


class _Importer(Loader):
    """Finder and loader of the modules below ``_PACKAGE``."""

    def __init__(self, archive: zipimporter, library: str) -> None:
        self._archive = archive
        self._library = library

    def find_spec(self, name: str, path: Optional[Sequence[str]], _target: Any = None) -> Optional[ModuleSpec]:
        if not name.startswith(_PACKAGE + ".") or not path:
            return None
        place = f"{path[0]}/{name.rpartition('.')[2]}"
        found = self._read(f"{place}.py") or self._read(f"{place}/__init__.py")
        if found is None:
            return None
        file, source = found
        spec = ModuleSpec(name, self, origin=file, loader_state=source, is_package=file.endswith("/__init__.py"))
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(place)
        return spec

    def _read(self, file: str) -> Optional[Tuple[str, bytes]]:
        try:
            return file, self._archive.get_data(file)
        except OSError:
            return None

    def create_module(self, _spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is None:
            raise ImportError(f"{module.__name__} has no specification")
        code = self._installed(spec) or compile(spec.loader_state, str(spec.origin), "exec", dont_inherit=True)
        exec(code, module.__dict__)

    def _installed(self, spec: ModuleSpec) -> Optional[CodeType]:
        """The code of the installed library's file; None if that is not the very same text."""
        name = spec.name[len(_PACKAGE) + 1 :].replace(".", "/")
        path = os.path.join(self._library, name + ("/__init__.py" if spec.submodule_search_locations else ".py"))
        try:
            with open(path, "rb") as file:
                if file.read() != spec.loader_state:
                    return None
            return SourceFileLoader(spec.name, path).get_code(spec.name)
        except (OSError, ImportError, EOFError, ValueError, TypeError):  # gone meanwhile, or its byte code is damaged
            return None

    def get_data(self, path: str) -> bytes:
        return self._archive.get_data(path)

    def get_source(self, name: str) -> str:
        """For tracebacks."""
        spec = sys.modules[name].__spec__
        return spec.loader_state.decode("utf-8") if spec else ""


def _archive() -> Optional[zipimporter]:
    loader = getattr(sys.modules[__name__].__spec__, "loader", None)
    return loader if isinstance(loader, zipimporter) else None


def _library(state_dir: str) -> str:
    """Where the manifest says that the library is; the usual place if it says nothing."""
    try:
        with open(os.path.join(state_dir, "current"), encoding="utf-8") as file:
            prefix = str(json.load(file)["unit"]["prefix"])
    except (OSError, ValueError, LookupError, TypeError):
        prefix = "/usr/local"
    return os.path.join(prefix, "lib", "sockredir", "sockredir")


def install(state_dir: str = _STATE_DIR) -> None:
    """Begin; does nothing if this was not imported from a zip file, or has begun.

    :param state_dir: str if the host's manifest is.
    """
    archive = _archive()
    if archive and not any(isinstance(finder, _Importer) for finder in sys.meta_path):
        sys.dont_write_bytecode = True  # what only looks leaves no file behind
        sys.meta_path.insert(0, _Importer(archive, _library(state_dir)))
