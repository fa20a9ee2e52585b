# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A snapshot of a host for one run: everything is read once, shared by all observers, and refreshed after a change."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

from ..errors import SockredirError
from ..host.mounts import Mount
from ..host.mounts import read as read_mounts
from ..kernel import attachments, libbpf
from ..kernel.model import LinkInfo
from ..state import manifest, store

Value = TypeVar("Value")


class Snapshot:
    """A host as it was when each part was first asked for.

    :ivar state_dir: str, where the manifest is.
    """

    def __init__(self, state_dir: str, assumed: Optional[manifest.Manifest] = None) -> None:
        """:param assumed: a manifest to be told instead of the one on the disk; it stays over :meth:`refresh`."""
        self.state_dir = state_dir
        self._assumed = assumed
        self._read: Dict[str, Any] = {}

    def refresh(self) -> None:
        """Forget what was read: the host has been changed."""
        self._read.clear()

    def _once(self, name: str, read: Callable[[], Value]) -> Value:
        if name not in self._read:
            self._read[name] = read()
        value: Value = self._read[name]
        return value

    def _manifest(self) -> Tuple[Optional[manifest.Manifest], Optional[str]]:
        if self._assumed is not None:
            return self._assumed, None
        return self._once("manifest", lambda: manifest.look(self.state_dir))

    @property
    def document(self) -> Optional[manifest.Manifest]:
        """What can be understood of the current manifest; None if there is none. Not to be changed.

        :raises SockredirError: it cannot be read at all, or is of another version.
        """
        return self._manifest()[0]

    @property
    def damage(self) -> Optional[str]:
        """What is wrong with the current manifest, in one line; None if nothing is."""
        return self._manifest()[1]

    @property
    def same_boot(self) -> bool:
        """Whether there is a manifest whose kernel ids are of this boot."""
        return self.document is not None and manifest.ids_valid(self.document)

    @property
    def previous_damage(self) -> Optional[str]:
        """Why a rollback could not be done; None if it could, or if there is nothing to go back to."""
        return self._once("previous", lambda: store.previous_damage(self.state_dir))

    @property
    def mounts(self) -> List[Mount]:
        """The mounts that this process sees.

        :raises OSError: proc is not mounted.
        """
        return self._once("mounts", read_mounts)

    @property
    def links(self) -> List[LinkInfo]:
        """Every BPF link of the host.

        :raises SockredirError: the kernel does not let us look.
        """
        return self._once("links", attachments.links)

    @property
    def has_libbpf(self) -> bool:
        """Whether libbpf can be loaded."""
        return self._once("libbpf", _has_libbpf)


def _has_libbpf() -> bool:
    try:
        libbpf.library()
    except SockredirError:
        return False
    return True
