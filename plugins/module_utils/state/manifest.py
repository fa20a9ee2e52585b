# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: what this host should run, as JSON in the state directory.

``current`` and ``previous`` are symbolic links to ``manifests/<number>.json``; each change writes a new file and moves
the link in one step. While a change is under way ``committed`` is false and ``previous`` is the last committed one:
what a rollback goes back to. Keys that this version does not know are kept.

Each file has a checksum of itself, so that a change by hand shows. What relies on the manifest alone (restore,
rollback) reads it with :func:`current` and stops at damage; what has options of its own and repairs reads what can be
understood with :func:`known`, and its next :func:`edit` writes a sound one.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import functools
import os
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from .. import atomic_file
from ..errors import SockredirError
from .manifest_file import (
    CURRENT,
    DIRECTORY,
    PREVIOUS,
    SCHEMA,
    Damaged,
    Manifest,
    at,
    drop_unused,
    read,
    write,
    write_file,
)

#: Of the manifest's files, what belongs to the manifest for its users.
__all__ = ["CURRENT", "DIRECTORY", "PREVIOUS", "SCHEMA", "Damaged", "Manifest"]

#: Where the role puts the sources of the programs.
SOURCES = "src"


ROLLING_BACK = "rolling_back"


LEAVING = "leaving"


#: In a program's entry: pins that a rollback takes away, path -> kernel id.
LEAVING_PINS = "leaving_pins"


Snapshot = Dict[str, Optional[Tuple[str, bytes]]]


# What the kernel said, as against what the operator wants.
_PROGRAM_IDS = ("program_ids", "map_ids")
_ATTACHMENT_IDS = ("program_id", "map_id", "link_id", "cgroup_id", "netns_ino", "met")
_PINS = (("pins", "program_ids"), ("map_pins", "map_ids"))


@functools.lru_cache(maxsize=None)
def boot_id() -> str:
    """Changes at each boot: kernel ids (of programs, maps, links) mean nothing in another boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        return stream.read().strip()


def empty(pin_dir: str = "") -> Manifest:
    """A manifest of a host that runs nothing."""
    return {
        "schema": SCHEMA,
        "committed": False,
        "boot_id": boot_id(),
        "pin_dir": pin_dir,
        "programs": {},
        "attachments": [],
        "settings": {},
        "files": {},
        "unit": {},
        "wanted": {},
        "draining": [],
    }


def current(state_dir: str) -> Optional[Manifest]:
    """The manifest of what this host runs, or is being changed to; None if there is none.

    :raises SockredirError: it is damaged, or of another version.
    """
    return read(state_dir, CURRENT)


def previous(state_dir: str) -> Optional[Manifest]:
    """The last committed manifest before :func:`current`; None if there is none.

    :raises SockredirError: it is damaged, or of another version.
    """
    return read(state_dir, PREVIOUS)


def known(state_dir: str) -> Optional[Manifest]:
    """Like :func:`current`, but of a damaged manifest what can be understood, and None if that is nothing.

    :raises SockredirError: it cannot be read at all, or is of another version.
    """
    try:
        return read(state_dir, CURRENT, verify=False)
    except Damaged:
        return None


def damage(state_dir: str) -> Optional[str]:
    """What is wrong with the current manifest, in one line; None if nothing is.

    :raises SockredirError: it cannot be read at all, or is of another version.
    """
    try:
        current(state_dir)
    except Damaged as error:
        return str(error)
    return None


def look(state_dir: str) -> Tuple[Optional[Manifest], Optional[str]]:
    """:func:`known` and :func:`damage` by one reading of a sound manifest.

    :raises SockredirError: it cannot be read at all, or is of another version.
    """
    try:
        return current(state_dir), None
    except Damaged as error:
        return known(state_dir), str(error)


def ids_valid(document: Manifest) -> bool:
    """Whether the kernel ids in it are of this boot."""
    return document.get("boot_id") == boot_id()


def edit(state_dir: str, change: Callable[[Manifest], None]) -> Manifest:
    """Change the current manifest, or a new one, and return the result; the caller holds the lock.

    Nothing is written where ``change`` changes nothing. The first change to a committed manifest keeps that one as
    ``previous``; a change of kernel ids alone leaves ``committed`` and ``previous`` as they are. A damaged manifest is
    replaced by what :func:`known` makes of it, and never becomes ``previous``.

    :param change: is given a copy to change in place; ids of an earlier boot are gone from it.
    :raises SockredirError: the new manifest cannot be written; the old one stays current.
    """
    before, harm = look(state_dir)
    document = empty() if before is None else copy.deepcopy(before)
    if not ids_valid(document):
        forget_ids(document)
    change(document)
    if harm:
        write(state_dir, dict(document, committed=False))
        return current(state_dir) or document
    if document == before:
        return document
    if before is None or _wants(document) != _wants(before):
        if before is not None and before["committed"]:
            atomic_file.link(at(state_dir, PREVIOUS), os.readlink(at(state_dir, CURRENT)))
        document["committed"] = False
    write(state_dir, document)
    return document


def commit(state_dir: str) -> None:
    """Declare the current manifest good: what a later rollback goes back to; the caller holds the lock.

    :raises SockredirError: there is none, or it cannot be written.
    """
    document = current(state_dir)
    if document is None:
        raise SockredirError(f"there is no manifest in {state_dir} to commit")
    if not document["committed"]:
        document.pop(ROLLING_BACK, None)
        for entry in [*document["programs"].values(), *document["attachments"]]:
            entry.pop(LEAVING, None)  # it was wanted again before it had left
            entry.pop(LEAVING_PINS, None)
        write(state_dir, dict(document, committed=True))


def amend(state_dir: str, change: Callable[[Manifest], None]) -> Manifest:
    """Change the current manifest as if it had always been so: neither ``previous`` nor ``committed`` is touched.

    :raises SockredirError: there is none, it is damaged, or the new one cannot be written; the old one stays current.
    """
    before = current(state_dir)
    if before is None:
        raise SockredirError(f"there is no manifest in {state_dir} to change")
    document = copy.deepcopy(before)
    change(document)
    if document != before:
        write(state_dir, document)
    return document


def rollback_target(state_dir: str) -> Manifest:
    """What :func:`begin_rollback` makes the current manifest.

    What only the one that is left has is in it too, marked as ``leaving``. Files and unit stay as they are: the tool
    that rolls back is one of them.

    :raises SockredirError: there is no previous one, or either is damaged.
    """
    now = current(state_dir)
    if now and now.get(ROLLING_BACK):
        return now
    before = previous(state_dir)
    if before is None:
        raise SockredirError(f"there is no previous manifest in {state_dir} to go back to", "nothing has changed since")
    document = {**copy.deepcopy(before), "committed": False, ROLLING_BACK: True}
    if not ids_valid(document):
        forget_ids(document)
    if now is None:
        return document
    document.update(files=now["files"], unit=now["unit"])
    if ids_valid(now):
        document["draining"] = now["draining"] + _giving_way(now)
    for name, entry in now["programs"].items():
        staying = document["programs"].setdefault(name, {**entry, LEAVING: True})
        surplus = _surplus_pins(entry, staying)
        if surplus:
            staying[LEAVING_PINS] = surplus
    keys = [_attachment_key(entry) for entry in document["attachments"]]
    leaving = [entry for entry in now["attachments"] if _attachment_key(entry) not in keys]
    document["attachments"] += [{**entry, LEAVING: True} for entry in leaving]
    document["cgroups"] = sorted({*before.get("cgroups", []), *now.get("cgroups", [])})
    return document


def _surplus_pins(now: Dict[str, Any], staying: Dict[str, Any]) -> Dict[str, int]:
    """The pins, with their ids, that only the first of two entries of a program has."""
    kept = {path for pins, _ids in _PINS for path in staying.get(pins, {}).values()}
    return {
        path: now[ids][name]
        for pins, ids in _PINS
        for name, path in now.get(pins, {}).items()
        if path not in kept and name in now.get(ids, {})
    }


def _giving_way(document: Manifest) -> List[Dict[str, Any]]:
    """Its programs as entries of ``draining``."""
    since = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    ids = [(name, number) for entry in document["programs"].values() for name, number in entry["program_ids"].items()]
    return [{"name": name, "program_id": number, "since": since} for name, number in ids]


def begin_rollback(state_dir: str) -> Manifest:
    """Make the previous manifest the current one, marked as on its way back; the caller holds the lock.

    A committed current one becomes ``previous`` in turn; an unfinished one is dropped. If a killed run has begun
    already, that is gone on with. :func:`commit` ends it.

    :raises SockredirError: there is no previous one, either is damaged, or the disk is full.
    """
    document = rollback_target(state_dir)
    now = current(state_dir)
    if now and now.get(ROLLING_BACK):
        return document
    here = os.readlink(at(state_dir, CURRENT)) if now and now["committed"] else None
    atomic_file.link(at(state_dir, CURRENT), write_file(state_dir, document))
    if here:
        atomic_file.link(at(state_dir, PREVIOUS), here)
    else:
        atomic_file.remove(at(state_dir, PREVIOUS))
    drop_unused(state_dir)
    return document


def _attachment_key(entry: Dict[str, Any]) -> Any:
    return tuple(entry.get(key) for key in ("program", "cgroup", "map", "netns"))


def forget_previous(state_dir: str) -> None:
    """Give up what a rollback would go back to; the caller holds the lock.

    :raises SockredirError: it cannot be removed.
    """
    atomic_file.remove(at(state_dir, PREVIOUS))
    drop_unused(state_dir)


def snapshot(state_dir: str) -> Snapshot:
    """The manifests as they are, damaged or not, for :func:`put_back`."""
    return {name: _raw(at(state_dir, name)) for name in (CURRENT, PREVIOUS)}


def put_back(state_dir: str, saved: Snapshot) -> None:
    """Undo every change since the snapshot; the caller has held the lock all the time.

    :raises SockredirError: the disk is full.
    """
    for name, found in saved.items():
        path = at(state_dir, name)
        if found == _raw(path):
            continue
        if found is None:
            atomic_file.remove(path)
        else:
            target, raw = found
            atomic_file.write(at(state_dir, target), raw)
            atomic_file.link(path, target)
    drop_unused(state_dir)


@contextlib.contextmanager
def unchanged_on_failure(state_dir: str) -> Iterator[None]:
    """Put the manifests back as they are now when what is done under this fails; the caller holds the lock."""
    saved = snapshot(state_dir)
    try:
        yield
    except Exception as error:
        try:
            put_back(state_dir, saved)
        except SockredirError as second:
            raise SockredirError(f"{error}; and the manifest could not be put back: {second}") from error
        raise


def _raw(link: str) -> Optional[Tuple[str, bytes]]:
    try:
        with open(link, "rb") as stream:
            return os.readlink(link), stream.read()
    except FileNotFoundError:
        return None


def forget_ids(document: Manifest) -> None:
    """Take out what an earlier boot's kernel said, and make the document one of this boot."""
    document["boot_id"] = boot_id()
    document["draining"] = []
    for program in document["programs"].values():
        program.update({key: {} for key in _PROGRAM_IDS})
    for attachment in document["attachments"]:
        attachment.update(dict.fromkeys(_ATTACHMENT_IDS))


def objects(document: Optional[Manifest]) -> List[str]:
    """The sha256 of every object that a manifest refers to."""
    programs = document["programs"].values() if document else []
    return sorted({program["object_sha256"] for program in programs if program.get("object_sha256")})


def _wants(document: Manifest) -> Manifest:
    wants = copy.deepcopy(document)
    forget_ids(wants)
    return wants
