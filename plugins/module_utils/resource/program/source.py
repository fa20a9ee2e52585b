# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of ``sockmap_program``, and the object that they name: stored, used as it is, or compiled now."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, NamedTuple, Optional, Tuple

from ...compile import compilers
from ...errors import SockredirError
from ...host import mounts
from ...kernel import elf
from ...state import store
from ..snapshot import Snapshot
from .observe import recorded_entry

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")


_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class Options(NamedTuple):
    """The options of ``sockmap_program``; :class:`.plan.Wanted` is what follows from them and the object.

    :ivar src: a C file or an object on this host.
    :ivar config: ``const volatile`` variable -> value.
    :ivar max_entries: map -> number of entries.
    :ivar checksum: sha256 that ``src`` must have, 64 hex digits, ``sha256:`` before them or not; empty for any.
    :ivar recreate: whether pinned maps that do not fit may be replaced.
    """

    name: str
    pin_dir: str
    state_dir: str
    src: str = ""
    compiler: str = compilers.AUTO
    defines: Dict[str, Any] = {}
    config: Dict[str, Any] = {}
    max_entries: Dict[str, Any] = {}
    checksum: str = ""
    recreate: bool = False


class Compiled(NamedTuple):
    data: bytes
    compiler: str
    source_digest: str
    notes: Tuple[str, ...] = ()


class NotYet(SockredirError):
    """Check mode cannot know more: an earlier task of the same play has changed nothing."""


def check_names(options: Options) -> None:
    if not _NAME.fullmatch(options.name):
        raise SockredirError(f"name: {options.name!r} is not up to 32 letters, digits, - and _")
    if options.checksum and not _SHA256.fullmatch(options.checksum):
        raise SockredirError(f"checksum: {options.checksum!r} is not a sha256: 64 hex digits")


def check_pin_dir(pin_dir: str, check: bool, host: Snapshot) -> None:
    """:raises SockredirError: pins cannot be there."""
    if not os.path.isabs(pin_dir):
        raise SockredirError(f"pin_dir: {pin_dir} is not an absolute path")
    bpffs = mounts.bpffs_holding(pin_dir, host.mounts)
    if not bpffs:
        if check and (not os.path.exists(pin_dir) or not os.listdir(pin_dir)):
            raise NotYet(f"no bpffs is mounted for {pin_dir} yet")
        other = mounts.holding(os.path.realpath(pin_dir), host.mounts)
        raise SockredirError(
            f"pin_dir: {pin_dir} is not on a bpffs but on {other.fstype if other else 'nothing'}",
            "use a directory below /sys/fs/bpf, or mount a bpffs with bpffs_pin state=mounted",
        )
    if "." in os.path.realpath(pin_dir)[len(bpffs.point) :]:
        raise SockredirError(f"pin_dir: {pin_dir} has a dot in a name, which a bpffs does not allow")


def obtain(options: Options, check: bool, host: Snapshot) -> Compiled:
    """The object: stored by an earlier run of the same source, taken as it is, or compiled now."""
    if not options.src:
        raise SockredirError("src: a C file or an object is needed with state=present")
    if check and not os.path.exists(options.src):
        raise NotYet(f"{options.src} is not there yet")
    data = compilers.read(options.src)
    _verify(options, data)
    if elf.is_elf(data):
        return Compiled(data, compilers.OBJECT, store.sha256(data))
    if b"\0" in data[:4096]:
        raise SockredirError(f"src: {options.src} is neither C nor an ELF file")
    return _stored(options, host) or _compile(options)


def _verify(options: Options, data: bytes) -> None:
    wanted = _SHA256.fullmatch(options.checksum)
    if wanted and store.sha256(data) != wanted[1]:
        raise SockredirError(
            f"checksum: {options.src} has the sha256 {store.sha256(data)}, not {wanted[1]}",
            "check where the file comes from; if it is right, correct the checksum",
        )


def _stored(options: Options, host: Snapshot) -> Optional[Compiled]:
    entry = recorded_entry(host.document, options.name)
    if not entry or entry["compiler"] == compilers.OBJECT:
        return None
    if options.compiler not in (compilers.AUTO, entry["compiler"]):
        return None
    digest = compilers.source_digest(options.src, _macros(options, entry["compiler"]), entry["compiler"])
    if digest != entry["source_digest"]:
        return None
    try:
        return Compiled(store.get(options.state_dir, entry["object_sha256"]), entry["compiler"], digest)
    except SockredirError:  # gone or damaged: compile again
        return None


def _compile(options: Options) -> Compiled:
    compiler = compilers.choose(options.compiler)
    digest = compilers.source_digest(options.src, _macros(options, compiler), compiler)
    compiled = compilers.compile_source(options.src, _macros(options, compiler), compiler)
    return Compiled(compiled.data, compiler, digest, (compiled.warnings,) if compiled.warnings else ())


def _macros(options: Options, compiler: str) -> Dict[str, Any]:
    """BCC has no ``const volatile`` variables: there the configuration is compiled in."""
    return {**options.defines, **options.config} if compiler == compilers.BCC else options.defines
