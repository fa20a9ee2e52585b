# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps remove this collection's files and state directories from a host. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Optional, Set

from ..change.step import Plan, Step
from ..datapath import settings as settings_form
from ..datapath.settings import Found
from ..datapath.settings_value import Mode
from ..host.files import File
from ..resource.attachment.plan import Change
from ..resource.setup.plan import Content

#: In each file that we write; one without it at the same place is somebody else's.
MARK = "Made by the Ansible collection ebpf.sockredir"


class NewSettings(NamedTuple):
    """:ivar settings: to be written for the programs, in the form of :func:`..datapath.settings.normal`."""

    settings: Dict[str, Any]


class Slice(NamedTuple):
    """:ivar name: the slice unit to stop."""

    name: str


def drain(found: Optional[Found]) -> Plan:
    """Have live connections go back to TCP, each direction behind what was redirected before."""
    if found is None or found.settings is None or found.settings.mode is Mode.DRAIN:
        return []
    now = settings_form.from_layout(found.settings)
    return [Step("drain", "settings", {"mode": now["mode"]}, {"mode": "drain"}, NewSettings({**now, "mode": "drain"}))]


def remove_files(found: Mapping[str, Optional[File]], recorded: Iterable[str]) -> Plan:
    """Remove those files that the manifest names, or that carry our mark; last made, first removed.

    :param found: by path, all that may be ours.
    """
    known = set(recorded)
    ours = {path: file for path, file in found.items() if file and (path in known or _is_ours(file, found))}
    order = sorted(ours, key=lambda path: (not ours[path].link, path))  # a unit is disabled before it goes
    return [Step("file", path, ours[path].show(), None, Content(None)) for path in order]


def _is_ours(file: File, found: Mapping[str, Optional[File]]) -> bool:
    target = found.get(file.text) if file.link else file
    return bool(target and not target.link and MARK in target.text)


def remove_directory(pin_dir: str, names: Iterable[str], steps: Iterable[Step]) -> Plan:
    """The pins' directory goes with the last pin; a plan in which it has gone already says so itself.

    :param names: paths in it now.
    :param steps: of the parts before.
    """
    steps = list(steps)
    gone: Set[str] = {step.subject for step in steps if step.after is None}
    changes = [step.detail for step in steps if isinstance(step.detail, Change)]
    gone |= {change.link_pin for change in changes if change.link_pin}
    if pin_dir in gone or set(names) - gone:
        return []
    return [Step("remove_directory", pin_dir, "directory", None)]


def named(step: Step) -> Step:
    """A step with what it says in the result: removing is not a drift."""
    return replace(step, kind="removed" if step.after is None else step.verb)
