# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loaded objects on disk, each under its own sha256: what a reboot or a rollback loads again."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Iterable, List, Optional

from .. import atomic_file
from ..errors import SockredirError
from . import manifest

DIRECTORY = "objects"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CURE = "run the role again: it compiles and stores the object again"


def sha256(data: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def path(state_dir: str, digest: str) -> str:
    """Where the object with this sha256 is, or would be.

    :raises ValueError: it is not a sha256.
    """
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"not a sha256: {digest!r}")
    return os.path.join(state_dir, DIRECTORY, f"{digest}.o")


def put(state_dir: str, data: bytes) -> str:
    """Store an object and return its sha256; the caller holds the lock.

    :raises SockredirError: it cannot be written.
    """
    digest = sha256(data)
    if not _intact(state_dir, digest):
        atomic_file.make_directory(state_dir)
        atomic_file.make_directory(os.path.join(state_dir, DIRECTORY))
        atomic_file.write(path(state_dir, digest), data)
    return digest


def get(state_dir: str, digest: str) -> bytes:
    """The object with this sha256, verified.

    :raises SockredirError: it is missing, or its content is not what it was.
    """
    where = path(state_dir, digest)
    try:
        with open(where, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise SockredirError(f"cannot read the object {where}: {error.strerror}", _CURE) from error
    if sha256(data) != digest:
        raise SockredirError(f"the object {where} is damaged: its content has the sha256 {sha256(data)}", _CURE)
    return data


def stored(state_dir: str) -> List[str]:
    """The sha256 of each object on disk, sorted; read from the names, not verified."""
    try:
        names = os.listdir(os.path.join(state_dir, DIRECTORY))
    except FileNotFoundError:
        return []
    return sorted(name[:-2] for name in names if name.endswith(".o") and _SHA256.fullmatch(name[:-2]))


def keep_only(state_dir: str, digests: Iterable[str]) -> List[str]:
    """Remove the objects that nothing refers to any more, and return their sha256; the caller holds the lock."""
    gone = [digest for digest in stored(state_dir) if digest not in set(digests)]
    for digest in gone:
        atomic_file.remove(path(state_dir, digest))
    return gone


def _intact(state_dir: str, digest: str) -> bool:
    try:
        get(state_dir, digest)
    except SockredirError:
        return False
    return True


def previous_damage(state_dir: str) -> Optional[str]:
    """Why a rollback could not be done; None if it could, or if there is nothing to go back to."""
    try:
        document = manifest.previous(state_dir)
        for digest in manifest.objects(document):
            get(state_dir, digest)
    except SockredirError as error:
        return error.message
    return None
