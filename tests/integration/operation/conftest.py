# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A complete host for each test, or one that is enabled and shared by the tests of a file."""

from support.managed_host import enabled, managed

__all__ = ["enabled", "managed"]
