# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that all modules of this collection share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
requirements:
  - Python 3.8 or newer on the target
  - libbpf.so.1 on the target
attributes:
  check_mode:
    description: Can run in C(check_mode) and predict the changed status without modifying the target.
    support: full
  diff_mode:
    description: Returns details on what has changed, or in C(check_mode) would change, when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: linux
    support: full
"""

    READS_ONLY = r"""
options: {}
requirements:
  - Python 3.8 or newer on the target
attributes:
  check_mode:
    description: Can run in C(check_mode) and predict the changed status without modifying the target.
    support: full
    details: This module changes nothing.
  diff_mode:
    description: Returns details on what has changed, or in C(check_mode) would change, when in diff mode.
    support: none
    details: This module changes nothing.
  platform:
    description: Target OS/families that can be operated against.
    platforms: linux
    support: full
"""
