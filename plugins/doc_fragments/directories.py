# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options for directories on a host, and for the lock."""

from __future__ import annotations


class ModuleDocFragment:
    STATE = r"""
options:
  state_dir:
    description:
      - Directory on the target with the objects and the manifest, which says what is loaded and attached.
      - It is created if it is missing, for root only.
    type: path
    default: /var/lib/sockredir
"""

    LOCK = r"""
options:
  lock_timeout:
    description: How many seconds to wait for another run on the same host before failing with its process id.
    type: int
    default: 60
"""

    PINS = r"""
options:
  pin_dir:
    description: Directory with the pins, on a bpffs of the target.
    type: path
    default: /sys/fs/bpf/sockredir
"""
