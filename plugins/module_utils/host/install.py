# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the library on the host: the package that runs now, under the name ``sockredir``, and its launcher.

The package lies in a numbered directory and ``sockredir`` is a symlink to it, so that an upgrade is one rename:
a run that is killed leaves the old library or the new one, never some files of each.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import re
import shutil
import sys
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from ..errors import SockredirError
from . import files

PACKAGE = "sockredir"
_VERSION = re.compile(r"package-(\d+)$")
_PYTHONS = ("/usr/bin/python3", "/usr/libexec/platform-python") + tuple(
    f"/usr/bin/python3.{minor}" for minor in range(19, 7, -1)
)

_LAUNCHER = """\
#!{python} -IS
# SPDX-License-Identifier: GPL-3.0-or-later
# Made by the Ansible collection ebpf.sockredir; goes when it is disabled.
import sys

sys.path.insert(0, {library!r})
from sockredir.tool.main import main

sys.exit(main(state_dir={state_dir!r}))
"""


class Places(NamedTuple):
    """Where the parts on the host are.

    :param prefix: str, directory with ``lib/sockredir`` and ``sbin/sockredirctl``.
    """

    prefix: str = "/usr/local"

    @property
    def library(self) -> str:
        """The directory that holds the package, and nothing else."""
        return os.path.join(self.prefix, "lib", "sockredir")

    @property
    def keep(self) -> str:
        """The directory above :attr:`library` that stays, also empty."""
        return os.path.dirname(self.library)

    @property
    def package(self) -> str:
        return os.path.join(self.library, PACKAGE)

    @property
    def launcher(self) -> str:
        return os.path.join(self.prefix, "sbin", "sockredirctl")

    @property
    def manual(self) -> str:
        return os.path.join(self.prefix, "share", "man", "man8", "sockredirctl.8")

    @property
    def bash_completion(self) -> str:
        return os.path.join(self.prefix, "share", "bash-completion", "completions", "sockredirctl")

    @property
    def zsh_completion(self) -> str:
        return os.path.join(self.prefix, "share", "zsh", "site-functions", "_sockredirctl")

    @property
    def documents(self) -> Tuple[str, str, str]:
        """What is there for those who type the launcher's name."""
        return self.manual, self.bash_completion, self.zsh_completion

    @property
    def shared(self) -> Tuple[str, str]:
        """The host's own directories that stay when manual and completion go."""
        share = os.path.join(self.prefix, "share")
        return share, os.path.join(share, "man")


def travelled() -> Dict[str, str]:
    """The package that this very function is part of: text by path below the package.

    Under Ansible that is the zip file which came with the module, with just those files that the module imports.
    """
    root = __name__.rsplit(".", 2)[0]
    package = importlib.import_module(root)
    names = ["__init__.py"]
    for found in pkgutil.walk_packages(package.__path__, root + "."):
        path = found.name[len(root) + 1 :].replace(".", "/")
        names.append(path + "/__init__.py" if found.ispkg else path + ".py")
    return {name: _source(root, name) for name in sorted(names)}


def _source(root: str, name: str) -> str:
    data = pkgutil.get_data(root, name)
    if data is None:
        raise SockredirError(f"{root}/{name} cannot be read from where this runs")
    return data.decode("utf-8")


def installed(places: Places) -> Dict[str, str]:
    """The Python files of the package on the host: text by path below the package; empty if there is none."""
    found: Dict[str, str] = {}
    top = os.path.realpath(places.package)
    for directory, _names, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            known = files.read(path) if name.endswith(".py") else None
            if known:
                found[os.path.relpath(path, top)] = known.text
    return found


def summary(package: Dict[str, str]) -> Optional[str]:
    """One digest over a package; None for an empty one."""
    if not package:
        return None
    whole = hashlib.sha256()
    for name in sorted(package):
        whole.update(f"{name}\0{files.digest(package[name])}\n".encode())
    return "sha256:" + whole.hexdigest()


def stale(places: Places) -> List[str]:
    """Directories of older or unfinished versions of the package, which nothing uses any more."""
    current = os.path.realpath(places.package)
    return [path for path in _versions(places) if os.path.realpath(path) != current]


def install(places: Places, package: Dict[str, str]) -> Callable[[], None]:
    """Make a package the installed one; returns what goes back to the one before.

    :raises SockredirError: it cannot be written; the one before is still in place.
    """
    before = files.read(places.package)
    version = _next_version(places)
    path = os.path.join(places.library, version)
    try:
        for name, text in package.items():
            files.replace(os.path.join(path, name), files.File(text))
        _compile(path)
        files.replace(places.package, files.symlink(version))
    except SockredirError:
        shutil.rmtree(path, ignore_errors=True)
        raise

    def undo() -> None:
        files.change(places.package, before, places.keep)
        shutil.rmtree(path, ignore_errors=True)
        files.prune(places.library, places.keep)

    return undo


def _compile(path: str) -> None:
    """Byte code for the tool, and for modules (see :mod:`..installed_bytecode`); where it cannot be written, none."""
    import compileall  # only needed here: a run that changes nothing goes without

    compileall.compile_dir(path, quiet=2)


def remove_stale(places: Places) -> None:
    """Remove what :func:`stale` lists."""
    for path in stale(places):
        _remove_tree(path)


def remove(places: Places) -> None:
    """Remove the package, all its versions, and the directories that are empty then."""
    files.remove(places.package, places.keep)
    for path in _versions(places):
        _remove_tree(path)
    files.prune(places.library, places.keep)


def _remove_tree(path: str) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SockredirError(f"cannot remove {path}: {error.strerror}") from error


def _versions(places: Places) -> List[str]:
    try:
        names = os.listdir(places.library)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(os.path.join(places.library, name) for name in names if _VERSION.match(name))


def _next_version(places: Places) -> str:
    taken = [int(match[1]) for match in map(_VERSION.search, _versions(places)) if match]
    return f"package-{max(taken, default=0) + 1}"


def launcher(places: Places, state_dir: str) -> files.File:
    """The file that starts the tool, under the distribution's own Python."""
    text = _LAUNCHER.format(python=interpreter(), library=places.library, state_dir=state_dir)
    return files.File(text, 0o755)


def interpreter() -> str:
    """The distribution's Python, which outlives any virtual environment; else the one that runs now.

    The version is read from the file's real name: starting each candidate would cost more than the rest of a run.
    """
    for path in _PYTHONS:
        version = re.search(r"python3\.(\d+)$", os.path.realpath(path))
        if version and int(version.group(1)) >= 8 and os.access(path, os.X_OK):
            return path
    return os.path.realpath(sys.executable)
