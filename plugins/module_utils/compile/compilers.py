# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile C to a BPF object: choose the compiler, report its errors in one line, identify equal compilations."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
from typing import Any, Dict, List, NamedTuple, Optional

from .. import distribution
from ..command import run
from ..errors import SockredirError

AUTO, CLANG, BCC, OBJECT = "auto", "clang", "bcc", "object"

_TIMEOUT_SECONDS = 300
_DIRECTORIES = ("/usr/local/bin", "/usr/bin")
_LLVM_DIRECTORIES = "/usr/lib/llvm-*/bin"
_NUMBERED = re.compile(r"clang-(\d+)")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
_ERROR = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+):\d+: (?:fatal )?error: (?P<text>.*)$", re.MULTILINE)
_NOT_FOUND = re.compile(r"'([^']+)' file not found")
_BIG_ENDIAN = ("aarch64_be", "armeb", "mips", "mips64", "parisc", "parisc64", "ppc", "ppc64", "s390x", "sparc64")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_SYSTEM_HEADERS = ("asm", "asm-generic", "bpf", "linux")


class Missing(SockredirError):
    """The compiler is not on this host."""


class Compiled(NamedTuple):
    """An object file, what made it, and its warnings."""

    data: bytes
    compiler: str
    warnings: str


def sources(src: str) -> List[str]:
    """The file and those that it includes by ``#include "..."``, directly or not, each once.

    :raises SockredirError: the file cannot be read.
    """
    found: List[str] = []
    _collect(src, found)
    return found


def _collect(path: str, found: List[str]) -> None:
    found.append(path)
    for name in _INCLUDE.findall(read(path).decode("utf-8", "replace")):
        included = os.path.normpath(os.path.join(os.path.dirname(path), name))
        if included not in found and os.path.isfile(included):
            _collect(included, found)


def source_digest(src: str, defines: Dict[str, Any], compiler: str) -> str:
    """64 hex digits over all that a compilation takes in: sources, definitions, kind of compiler; with bcc, the kernel.

    Equal digests mean that there is no need to compile again. File contents count, not times or directories.
    """
    start = os.path.dirname(src)
    parts = [[os.path.relpath(path, start), hashlib.sha256(read(path)).hexdigest()] for path in sources(src)[1:]]
    parts.sort()
    whole = [hashlib.sha256(read(src)).hexdigest(), parts, options(defines), compiler, kernel_of(compiler)]
    return hashlib.sha256(json.dumps(whole).encode("utf-8")).hexdigest()


def kernel_of(compiler: str) -> Optional[str]:
    """The release of the only kernel that this compiler's object is for; None if it is for any."""
    return os.uname().release if compiler == BCC else None


def read(path: str) -> bytes:
    """:raises SockredirError: the file cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise SockredirError(f"cannot read {path}: {error.strerror}") from error


def options(defines: Dict[str, Any]) -> List[str]:
    """``-D`` options, sorted by name; a value of True or None defines the bare name, False leaves it out.

    :raises SockredirError: a name is not one that C could have.
    """
    result = []
    for name in sorted(defines):
        value = defines[name]
        if not _IDENTIFIER.fullmatch(name):
            raise SockredirError(f"defines: {name!r} is not a name in C")
        if value is not False:
            result.append(f"-D{name}" if value is None or value is True else f"-D{name}={value}")
    return result


def choose(wanted: str) -> str:
    """The compiler for ``auto``: clang if it is installed, else bcc. Any other choice is taken as it is.

    :raises Missing: ``auto``, and there is neither.
    """
    if wanted != AUTO:
        return wanted
    if find_clang():
        return CLANG
    from . import bcc

    found = bcc.search()
    if found.real:
        return BCC
    other = f" ({found.others[0]} is another package of that name)" if found.others else ""
    raise Missing(f"compiler: neither clang nor bcc is installed on this host{other}", _install(CLANG))


def compile_source(src: str, defines: Dict[str, Any], compiler: str) -> Compiled:
    """Compile with the compiler of this kind.

    :raises Missing: it is not on this host.
    :raises SockredirError: the source does not compile: the first error with file and line; ``detail`` is all of it.
    """
    return compile_bcc(src, defines) if compiler == BCC else compile_clang(src, defines)


def compile_bcc(src: str, defines: Dict[str, Any]) -> Compiled:
    """Compile with the distribution's BCC, for the running kernel; see :func:`compile_source`."""
    from . import bcc

    found = bcc.search()
    if not found.real:
        other = f"{found.others[0]} is not BCC but another package of that name" if found.others else ""
        raise Missing(f"compiler: {other or 'bcc is not installed on this host'}", _install(BCC))
    if not bcc.has_headers():
        needed = f"the headers of the running kernel, {os.uname().release}"
        raise Missing(f"compiler: bcc needs {needed}, which are not installed on this host", _install(BCC))
    try:
        return Compiled(bcc.compile_source(found.real, src, options(defines)), BCC, "")
    except bcc.Failed as error:
        raise _explain(src, str(error), 1) from error


def find_clang() -> Optional[str]:
    """The path of ``clang``, or of the newest ``clang-N``; None if there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_DIRECTORIES])
    found = shutil.which("clang", path=path)
    if found:
        return found
    directories = path.split(os.pathsep) + glob.glob(_LLVM_DIRECTORIES)
    numbered = [
        name for directory in directories if directory for name in glob.glob(os.path.join(directory, "clang-*"))
    ]
    versions = [
        (int(match[1]), name) for name in numbered for match in [_NUMBERED.fullmatch(os.path.basename(name))] if match
    ]
    versions = [pair for pair in versions if os.access(pair[1], os.X_OK)]
    return max(versions)[1] if versions else None


def target(architecture: str) -> str:
    """What clang calls BPF of a machine's byte order; the machine as ``uname -m`` says it."""
    return "bpfeb" if architecture in _BIG_ENDIAN else "bpfel"


def compile_clang(src: str, defines: Dict[str, Any], target: str = "bpf") -> Compiled:
    """Compile with clang for libbpf; writes no file.

    :param target: ``bpf`` for this host, else see :func:`target`.
    :raises Missing: no clang.
    :raises SockredirError: see :func:`compile_source`.
    """
    clang = find_clang()
    if not clang:
        raise Missing("compiler: clang is not installed on this host", _install(CLANG))
    directory, name = os.path.split(os.path.abspath(src))
    command = [
        clang,
        "-O2",
        "-g",
        "-Wall",
        "-target",
        target,
        "-fno-color-diagnostics",
        f"-fdebug-prefix-map={directory}=.",
    ]
    command += options(defines) + _kernel_includes() + ["-c", name, "-o", "-"]
    done = run(command, _TIMEOUT_SECONDS, directory)
    log = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise _explain(src, log, done.returncode)
    return Compiled(done.stdout, CLANG, log)


def _install(compiler: str) -> str:
    return "run: " + distribution.install(compiler, distribution.read())


def _kernel_includes() -> List[str]:
    """Where Debian and its like keep <asm/...>; clang looks there for the host's own target only."""
    machine = os.uname().machine
    return [f"-idirafter{path}" for path in sorted(glob.glob(f"/usr/include/{machine}-linux-gnu*"))]


def _explain(src: str, log: str, status: int) -> SockredirError:
    match = _ERROR.search(log)
    if not match:
        last = (log.strip().splitlines() or [f"clang exited with status {status}"])[-1]
        return SockredirError(f"{src} does not compile: {last.strip()}", "", log)
    place = os.path.normpath(os.path.join(os.path.dirname(src), match["file"]))
    missing = _NOT_FOUND.search(match["text"])
    cure = _install(CLANG) if missing and missing[1].split("/")[0] in _SYSTEM_HEADERS else ""
    return SockredirError(f"{src} does not compile: {place}:{match['line']}: {match['text']}", cure, log)
