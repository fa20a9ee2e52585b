# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a program's plan, each with its undo."""

from __future__ import annotations

import datetime
import os
from typing import Callable, Dict, Optional

from ... import atomic_file
from ...change.step import Step
from ...change.transaction import Handler
from ...errors import SockredirError
from ...kernel import libbpf, objects
from ...kernel.loader import Loadable
from ...state import manifest, store
from . import plan as planning
from .observe import still_used
from .planned import Planned


def remove_directory(step: Step) -> Callable[[], None]:
    """The handler that removes an empty directory of pins; returns how to undo it."""
    os.rmdir(step.subject)
    return lambda: os.mkdir(step.subject, 0o700)


def handlers(state_dir: str, found: Planned) -> Dict[str, Handler]:
    """The handlers of a plan for an object, good while its context lasts."""
    return Handlers(state_dir, found.data, found.loadable).handlers()


class Handlers:
    """The handlers of a plan's steps: each does its step and returns how to undo it."""

    def __init__(self, state_dir: str, data: bytes = b"", loadable: Optional[Loadable] = None) -> None:
        self._state_dir = state_dir
        self._data = data
        self._loadable = loadable

    def handlers(self) -> Dict[str, Handler]:
        """By verb."""
        return {
            "make_directory": self._make_directory,
            "remove_directory": remove_directory,
            "store": self._store,
            "load": self._load,
            "pin": self._pin,
            "replace": self._replace,
            "unpin": self._unpin,
            "record": self._record,
            "identify": self._identify,
            "forget": self._forget,
        }

    def _make_directory(self, step: Step) -> Callable[[], None]:
        try:
            os.makedirs(step.subject, 0o700)
        except OSError as error:
            raise SockredirError(f"pin_dir: cannot create {step.subject}: {error.strerror}") from error
        return lambda: os.rmdir(step.subject)

    def _store(self, _step: Step) -> Callable[[], None]:
        digest = store.put(self._state_dir, self._data)
        return lambda: atomic_file.remove(store.path(self._state_dir, digest))

    def _load(self, step: Step) -> Callable[[], None]:
        maps = {name: libbpf.map_by_id(number) for name, number in step.need(planning.Load).reuse.items()}
        self._loaded().load(maps)
        for descriptor in maps.values():
            descriptor.close()
        return self._loaded().close

    def _loaded(self) -> Loadable:
        if self._loadable is None:
            raise RuntimeError("a plan with these steps is made from an object only")
        return self._loadable

    def _pin(self, step: Step) -> Callable[[], None]:
        with self._target(step) as descriptor:
            libbpf.pin(descriptor, step.subject)
        return lambda: os.unlink(step.subject)

    def _replace(self, step: Step) -> Callable[[], None]:
        old = libbpf.get(step.subject)
        with self._target(step) as descriptor:
            _put(descriptor, step.subject)
        return lambda: _put(old, step.subject)

    def _target(self, step: Step) -> libbpf.Fd:
        what = step.need(planning.Pinned)
        if what.id is not None:
            return libbpf.map_by_id(what.id)
        found = self._loaded().map if what.kind == "map" else self._loaded().program
        return libbpf.Fd(os.dup(found(what.name).fileno()))

    def _unpin(self, step: Step) -> Callable[[], None]:
        old = libbpf.get(step.subject)
        os.unlink(step.subject)
        return lambda: libbpf.pin(old, step.subject)

    def _record(self, step: Step) -> Callable[[], None]:
        name, entry = step.need(planning.Recorded)

        def change(document: manifest.Manifest) -> None:
            ids = {key: document["programs"].get(name, {}).get(key, {}) for key in planning.IDS}
            document["programs"][name] = dict(entry, **ids)
            pins = [*entry["pins"].values(), *entry["map_pins"].values()]
            document["pin_dir"] = document["pin_dir"] or os.path.dirname(pins[0])

        return self._edit(change)

    def _identify(self, step: Step) -> Callable[[], None]:
        name, replaced = step.need(planning.Identified)

        def change(document: manifest.Manifest) -> None:
            entry = document["programs"][name]
            before = dict(entry["program_ids"])
            pins = {name: objects.at(path) for name, path in entry["pins"].items()}
            programs = {name: pin.program for name, pin in pins.items() if pin and pin.program}
            entry["program_ids"] = {name: program.id for name, program in programs.items()}
            entry["program_tags"] = {name: program.tag for name, program in programs.items()}
            maps = {name: objects.at(path) for name, path in entry["map_pins"].items()}
            entry["map_ids"] = {name: pin.id for name, pin in maps.items() if pin}
            gone = {name: number for name, number in before.items() if number != entry["program_ids"].get(name)}
            _note_draining(document, dict(gone, **replaced))

        return self._edit(change)

    def _forget(self, step: Step) -> Callable[[], None]:
        name = step.need(planning.Forgotten).name

        def change(document: manifest.Manifest) -> None:
            entry = document["programs"].pop(name)
            _note_draining(document, entry.get("program_ids", {}))

        return self._edit(change)

    def _edit(self, change: Callable[[manifest.Manifest], None]) -> Callable[[], None]:
        saved = manifest.snapshot(self._state_dir)
        manifest.edit(self._state_dir, change)
        return lambda: manifest.put_back(self._state_dir, saved)


def _put(descriptor: libbpf.Descriptor, path: str) -> None:
    """Pin in the place of what is pinned there, in one step."""
    temporary = path + planning.TEMPORARY
    if os.path.lexists(temporary):
        os.unlink(temporary)
    libbpf.pin(descriptor, temporary)
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _note_draining(document: manifest.Manifest, programs: Dict[str, int]) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    known = {entry["program_id"] for entry in document["draining"]}
    fresh = [
        {"name": name, "program_id": number, "since": now} for name, number in programs.items() if number not in known
    ]
    document["draining"] = still_used(document["draining"] + fresh)
