# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel has, as plain values: no file here asks the kernel anything."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple, Union

from .hooks import CGROUP, MAP, NETNS, Hook

#: How a program is attached.
LINK, LEGACY = "link", "legacy"


class ProgramInfo(NamedTuple):
    """:ivar tag: str, 16 hex digits; blind to rodata and to the attach type, so no identity.
    :ivar load_time_ns: int, nanoseconds since boot.
    :ivar map_ids: the maps the program uses, .rodata and the like among them.
    """

    id: int
    type: int
    name: str
    tag: str
    load_time_ns: int
    uid: int
    map_ids: Tuple[int, ...]
    btf_id: int


class MapInfo(NamedTuple):
    """Sizes in bytes; ``max_entries`` counts entries (bytes for a ring buffer)."""

    id: int
    type: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


class LinkInfo(NamedTuple):
    """:ivar cgroup_id: of a cgroup link, 0 once its cgroup is gone; 0 for other links.
    :ivar map_id: of a sockmap link; 0 for other links.
    :ivar attach_type: of these two and of a netns link; None for other links.
    :ivar netns_ino: inode of a netns link's namespace, 0 once that is gone; 0 for other links.
    """

    id: int
    type: int
    program_id: int
    cgroup_id: int
    map_id: int
    attach_type: Optional[int]
    netns_ino: int = 0

    def target_id(self, kind: str) -> int:
        """What the link is on, if that is of this kind (:data:`.hooks.KINDS`)."""
        return {CGROUP: self.cgroup_id, MAP: self.map_id, NETNS: self.netns_ino}[kind]


class Program(NamedTuple):
    """A loaded program.

    :ivar type: int, as in <linux/bpf.h>.
    :ivar map_ids: the maps it uses, internal ones too.
    :ivar digest: ``sha256:...`` as the loader wrote it; None if our loader did not.
    :ivar layout: int, the version of its maps' layout; None if it does not say.
    """

    id: int
    name: str
    type: int
    tag: str
    load_time_ns: int
    map_ids: Tuple[int, ...]
    digest: Optional[str]
    layout: Optional[int]


class Pin(NamedTuple):
    """What is pinned at a path.

    :ivar kind: ``program``, ``map``, ``link`` or ``btf``; ``directory`` or ``symlink`` for what is not a pin.
    :ivar object: a :class:`Program`, a :class:`MapInfo` or a :class:`LinkInfo`; else None.
    """

    path: str
    kind: str
    object: Union[Program, MapInfo, LinkInfo, None]

    @property
    def id(self) -> int:
        """The kernel's id of what is pinned; 0 for what is not a pin."""
        return self.object.id if self.object else 0

    @property
    def program(self) -> Optional[Program]:
        """The program that is pinned; None if something else is."""
        return self.object if isinstance(self.object, Program) else None

    @property
    def map(self) -> Optional[MapInfo]:
        """The map that is pinned; None if something else is."""
        return self.object if isinstance(self.object, MapInfo) else None

    @property
    def digest(self) -> Optional[str]:
        """The mark of our loader in the program that is pinned; None if there is no such program or mark."""
        return self.object.digest if isinstance(self.object, Program) else None


class Attached(NamedTuple):
    """One program on a target; ``link_id`` is None if it is attached without a link."""

    program_id: int
    method: str
    link_id: Optional[int] = None


class PinnedLink(NamedTuple):
    """What a link pin holds. ``target_id`` is a cgroup's or map's id or a namespace's inode, 0 if it is gone."""

    link_id: int
    program_id: int
    target_id: int
    hook: Optional[Hook] = None
