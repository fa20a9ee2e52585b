# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to this machine that can be lost: what ssh does when its host goes away, for tests on one machine."""

from __future__ import annotations

DOCUMENTATION = r"""
name: losable
short_description: Local, until a file says that the host is lost
author: sockredir contributors (!UNKNOWN)
description:
  - A file of the host's name in O(losable_dir) holds a path, and behind it what the connection says; once that path
    exists the host is lost.
extends_documentation_fragment:
  - connection_pipelining
options:
  losable_dir:
    description: Directory of the files.
    type: path
    vars:
      - name: losable_dir
  losable_host:
    description: The host's name.
    type: str
    vars:
      - name: inventory_hostname
"""

from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local


class Connection(Local):
    """Runs commands here; a lost host answers nothing."""

    transport = "losable"

    def exec_command(self, *args, **kwargs):
        self._check()
        return super().exec_command(*args, **kwargs)

    def put_file(self, *args, **kwargs):
        self._check()
        return super().put_file(*args, **kwargs)

    def _check(self) -> None:
        name = self.get_option("losable_host")
        file = Path(self.get_option("losable_dir"), name)
        if not file.exists():
            return
        once, _newline, says = file.read_text(encoding="utf-8").partition("\n")
        if Path(once).exists():
            raise AnsibleConnectionFailure(f"connect to host {name} port 22: {says}")
