# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a pinned map can serve a new program, and what differs if it cannot."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional

from .btf import Field


class MapSpec(NamedTuple):
    """All of a map that a program depends on. Sizes in bytes.

    :ivar type: str, as in ``sockhash``.
    :ivar layout: the fields of ``key`` and of ``value``, if they are known; the kernel keeps none for some types.
    :ivar layout_version: int, of the object that made the map; None if it does not say.
    """

    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    layout: Dict[str, List[Field]] = {}
    layout_version: Optional[int] = None


def differences(pinned: MapSpec, wanted: MapSpec) -> List[str]:
    """What keeps a program that wants one map from using another; empty if it can.

    The kernel compares the sizes only when it must, and layouts never.
    """
    names = ("type", "key_size", "value_size", "max_entries", "flags")
    found = [_line(name, getattr(pinned, name), getattr(wanted, name)) for name in names]
    if pinned.layout_version is not None and wanted.layout_version is not None:
        found.append(_line("layout version", pinned.layout_version, wanted.layout_version))
    for side in ("key", "value"):
        if pinned.layout.get(side) and wanted.layout.get(side):
            found += _fields(side, pinned.layout[side], wanted.layout[side])
    return [line for line in found if line]


def _line(what: str, pinned: object, wanted: object) -> str:
    return "" if pinned == wanted else f"{what}: {pinned} pinned, {wanted} wanted"


def _fields(side: str, pinned: List[Field], wanted: List[Field]) -> List[str]:
    old, new = ({field.path: _place(field) for field in fields} for fields in (pinned, wanted))
    paths = list(old) + [path for path in new if path not in old]
    return [_line(f"{side}.{path}".rstrip("."), old.get(path, "absent"), new.get(path, "absent")) for path in paths]


def _place(field: Field) -> str:
    offset, bits = divmod(field.bit_offset, 8)
    return f"{field.bit_size} bits at byte {offset}" + (f" bit {bits}" if bits else "")
