# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cases, one file a subject. Importing this package registers them all."""

import importlib

from ..case import CASES

__all__ = ["CASES", "GROUPS"]

GROUPS = (
    "stream",
    "changes",
    "connect",
    "shutdown",
    "closing",
    "reuse",
    "saved",
    "blocking",
    "readiness",
    "loops",
    "reading",
    "sending",
    "options",
    "processes",
    "protocols",
    "scale",
    "operations",
    "fuzz",
)

for _group in GROUPS:
    importlib.import_module(f"{__name__}.{_group}")
