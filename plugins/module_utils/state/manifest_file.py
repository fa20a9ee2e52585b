# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest's files: read and checked, written whole, linked in one step."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, Dict, List, Optional

from .. import atomic_file
from ..errors import SockredirError

SCHEMA = 1


CURRENT = "current"


PREVIOUS = "previous"


DIRECTORY = "manifests"


Manifest = Dict[str, Any]


class Damaged(SockredirError):
    """A manifest that is not as it was written."""


_FILE = re.compile(r"(\d{8})\.json")


_SECTIONS = {
    "committed": bool,
    "boot_id": str,
    "pin_dir": str,
    "programs": dict,
    "attachments": list,
    "settings": dict,
    "files": dict,
    "unit": dict,
    "wanted": dict,
    "draining": list,
}


def read(state_dir: str, name: str, verify: bool = True) -> Optional[Manifest]:
    path = at(state_dir, name)
    try:
        with open(path, "rb") as stream:
            raw = stream.read()
    except FileNotFoundError:
        if os.path.islink(path):
            raise _damaged(path, f"it points to {os.readlink(path)}, which is not there") from None
        return None
    except OSError as error:
        raise SockredirError(f"cannot read the manifest {path}: {error.strerror}") from error
    try:
        document = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    _check(path, document)
    checksum = document.pop("checksum", None)
    if verify and checksum != _checksum(document):
        raise _damaged(path, "it was changed by hand, its checksum does not match")
    return document


def _checksum(document: Manifest) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode("utf-8")).hexdigest()


def _check(path: str, document: Any) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise _damaged(path, "it is JSON, but not a manifest")
    if document["schema"] != SCHEMA:
        raise SockredirError(
            f"the manifest {path} has schema {document['schema']}, this version knows {SCHEMA}",
            "use the version of the collection that wrote it, or disable with that one first",
        )
    for key, kind in _SECTIONS.items():
        if not isinstance(document.get(key), kind):
            raise _damaged(path, f"{key} is missing or not a {kind.__name__}")
    entries = list(document["programs"].values()) + document["attachments"]
    if not all(isinstance(entry, dict) for entry in entries):
        raise _damaged(path, "an entry of programs or attachments is not a dict")


def _damaged(path: str, reason: str) -> Damaged:
    return Damaged(
        f"the manifest {path} is damaged: {reason}",
        "run the role again: it keeps what is loaded and writes the manifest again",
    )


def write(state_dir: str, document: Manifest) -> None:
    atomic_file.link(at(state_dir, CURRENT), write_file(state_dir, document))
    drop_unused(state_dir)


def write_file(state_dir: str, document: Manifest) -> str:
    """Write a manifest that no link names yet; returns what the link is to say."""
    directory = at(state_dir, DIRECTORY)
    atomic_file.make_directory(state_dir)
    atomic_file.make_directory(directory)
    name = _next_name(directory)
    whole = dict(document, checksum=_checksum(document))
    text = json.dumps(whole, indent=1, sort_keys=True) + "\n"
    atomic_file.write(os.path.join(directory, name), text.encode("utf-8"))
    return os.path.join(DIRECTORY, name)


def _next_name(directory: str) -> str:
    numbers = [int(match[1]) for match in map(_FILE.fullmatch, os.listdir(directory)) if match]
    return f"{max(numbers, default=0) + 1:08d}.json"


def drop_unused(state_dir: str) -> None:
    used = [os.path.basename(os.readlink(link)) for link in _links(state_dir) if os.path.islink(link)]
    directory = at(state_dir, DIRECTORY)
    for name in os.listdir(directory):
        if name not in used:
            atomic_file.remove(os.path.join(directory, name))


def _links(state_dir: str) -> List[str]:
    return [at(state_dir, CURRENT), at(state_dir, PREVIOUS)]


def at(state_dir: str, name: str) -> str:
    return os.path.join(state_dir, name)
