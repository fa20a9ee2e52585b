# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong with a virtual machine, said in one line."""

from __future__ import annotations


class VmError(Exception):
    """One line with what, where and the cure; `detail` holds a log's end, if there is one."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class NoMirror(VmError):
    """No package mirror answers: not our fault, and callers may want to tell it from one."""
