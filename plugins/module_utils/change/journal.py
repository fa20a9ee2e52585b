# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell systemd's journal of changes, with fields, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

from __future__ import annotations

import collections
import contextlib
import socket
import struct
from typing import Callable, Dict, Iterable, Iterator

from ..errors import SockredirError
from .step import Plan, Step, describe, kind

SOCKET = "/run/systemd/journal/socket"
#: syslog(3).
_ERROR, _NOTICE = 3, 5
# A change is not kept waiting by a journal that does not read, and an entry has to fit a datagram.
_TIMEOUT_SECONDS = 0.5
_LONGEST_LINE, _LONGEST_VALUE = 400, 60_000


@contextlib.contextmanager
def change(action: str, check: bool = False, **more: str) -> Iterator[Callable[[Plan], None]]:
    """Write an entry about what is done under this: what it did, or why it failed; none if it did nothing.

    :param action: str, one word for operators: ``enable``, ``restore`` ...
    :param check: bool, nothing is done, so nothing is written.
    :param more: further fields, by their names after ``SOCKREDIR_`` in lower case.
    :returns: by the context: takes the steps that were done.
    """
    if check:
        yield lambda _steps: None
        return
    steps: Plan = []
    fields = {"SOCKREDIR_ACTION": action, **{f"SOCKREDIR_{name.upper()}": value for name, value in more.items()}}
    try:
        yield steps.extend
    except SockredirError as error:
        send(f"{action} failed: {error}", _ERROR, {**fields, "SOCKREDIR_RESULT": "failed"})
        raise
    if steps:
        send(f"{action}: {_summary(steps)}", _NOTICE, {**fields, "SOCKREDIR_RESULT": "done", **_told(steps)})


def send(message: str, priority: int, fields: Dict[str, str]) -> bool:
    """Write an entry.

    :param priority: int, of syslog(3).
    :returns: whether the journal took it; without systemd nobody does, and that is no error.
    """
    every = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "sockredir", **fields}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.settimeout(_TIMEOUT_SECONDS)
            end.sendto(encode(every), SOCKET)
    except OSError:
        return False
    return True


def encode(fields: Dict[str, str]) -> bytes:
    """An entry as a datagram: a value of several lines has its length before it."""
    return b"".join(_field(name.encode("ascii"), value) for name, value in fields.items())


def _field(name: bytes, text: str) -> bytes:
    value = text[:_LONGEST_VALUE].encode("utf-8", "surrogateescape")
    if b"\n" in value:
        return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name + b"=" + value + b"\n"


def _told(steps: Iterable[Step]) -> Dict[str, str]:
    lines = [describe(step).replace("\n", " ")[:_LONGEST_LINE] for step in steps]
    return {"SOCKREDIR_KINDS": " ".join(sorted({kind(step) for step in steps})), "SOCKREDIR_STEPS": "\n".join(lines)}


def _summary(steps: Iterable[Step]) -> str:
    counted = sorted(collections.Counter(kind(step) for step in steps).items())
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counted)
