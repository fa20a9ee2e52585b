# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for an object: opened, observed, planned. Reads only; nothing here knows how a step is done."""

from __future__ import annotations

import contextlib
import os
from typing import ContextManager, Iterator, NamedTuple

from ...change.step import Plan
from ...compile import compilers
from ...errors import SockredirError
from ...kernel.loader import Loadable
from ...state import manifest, store
from ..snapshot import Snapshot
from . import plan as planning
from .observe import observe, recorded_entry
from .source import Compiled, Options


class Planned(NamedTuple):
    """A plan with the object that it is for.

    :ivar data: the object.
    :ivar loadable: the same, opened; good while the context that yielded it lasts.
    """

    wanted: planning.Wanted
    steps: Plan
    data: bytes
    loadable: Loadable


def recorded(name: str, document: manifest.Manifest, host: Snapshot) -> ContextManager[Planned]:
    """What it takes to load and pin what a manifest names, from the stored object: no compiler, no source.

    A pinned map that does not fit is replaced.

    :param document: the manifest that says what is wanted; the host's own one helps to observe what is there.
    :raises SockredirError: the object is damaged, or something foreign is in the way.
    """
    entry = document["programs"][name]
    pin_dir = os.path.dirname(min(entry["pins"].values()))
    kept = {key: entry[key] for key in ("src", "compiler", "defines", "config", "max_entries")}
    options = Options(name, pin_dir, host.state_dir, recreate=True, **kept)
    running = os.uname().release
    if entry.get("kernel") not in (None, running):
        raise SockredirError(
            f"bcc compiled the programs of {name} for the kernel {entry['kernel']}, this is {running}",
            "run the role again: it compiles them for this kernel",
        )
    data = store.get(host.state_dir, entry["object_sha256"])
    return planned(options, Compiled(data, entry["compiler"], entry["source_digest"]), host)


@contextlib.contextmanager
def planned(options: Options, found: Compiled, host: Snapshot) -> Iterator[Planned]:
    """What it takes to load and pin an object.

    :raises SockredirError: it is not one that can be loaded as asked for, or something foreign is in the way.
    """
    where = options.src if found.compiler != compilers.OBJECT or os.path.exists(options.src) else options.name
    config = {} if found.compiler == compilers.BCC else options.config
    with Loadable(found.data, options.name, where, config, options.max_entries) as loadable:
        wanted = _wanted(options, found, loadable)
        loadable.stamp(wanted.entry["digest"])
        document = host.document
        observed = observe(
            recorded_entry(document, options.name),
            options.pin_dir,
            document,
            options.name,
            wanted.programs,
            wanted.maps,
        )
        observed = observed._replace(
            stored=_is_stored(options.state_dir, wanted.entry["object_sha256"]),
            damage=host.damage or "",
        )
        yield Planned(wanted, planning.present(wanted, observed), found.data, loadable)


def _wanted(options: Options, found: Compiled, loadable: Loadable) -> planning.Wanted:
    sha256 = store.sha256(found.data)
    types = {name: (program.prog_type, program.attach_type) for name, program in loadable.programs.items()}
    entry = {
        "object_sha256": sha256,
        "source_digest": found.source_digest,
        "digest": planning.digest(sha256, types, options.config, options.max_entries),
        "compiler": found.compiler,
        "kernel": compilers.kernel_of(found.compiler),
        "src": options.src,
        "defines": options.defines,
        "config": options.config,
        "max_entries": options.max_entries,
        "layout_version": loadable.layout_version,
        "pins": {name: planning.pin_path(options.pin_dir, name) for name in loadable.programs},
        "map_pins": {name: planning.pin_path(options.pin_dir, name) for name in loadable.maps},
    }
    return planning.Wanted(options.name, options.pin_dir, entry, types, loadable.maps, options.recreate)


def _is_stored(state_dir: str, digest: str) -> bool:
    try:
        store.get(state_dir, digest)
    except SockredirError:
        return False
    return True
