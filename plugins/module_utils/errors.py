# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error type of the library."""

from __future__ import annotations


class SockredirError(Exception):
    """Something an operator has to know, in one line.

    :param message: str, what went wrong and where (the option, path, id).
    :param cure: str, what to do about it; may be empty.
    :param detail: str, many lines: the verifier's or compiler's log; never part of the line.
    """

    def __init__(self, message: str, cure: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.detail = detail

    def __str__(self) -> str:
        line = f"{self.message}; {self.cure}" if self.cure else self.message
        return " ".join(line.split())
