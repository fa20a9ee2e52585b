# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup ``ebpf.sockredir.file_checksum``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: file_checksum
short_description: Return the SHA-256 of a file on the controller
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Unlike the lookup C(ansible.builtin.file) with a hash filter, this also reads binary files.
options:
  _terms:
    description: Paths of files on the controller.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Load an object that was compiled elsewhere
  ebpf.sockredir.sockmap_program:
    name: sockredir
    src: /var/lib/sockredir/src/sockredir.bpf.o
    checksum: "{{ lookup('ebpf.sockredir.file_checksum', 'sockredir.bpf.o') }}"
"""

RETURN = r"""
_raw:
  description: The checksum of each file, 64 hexadecimal digits.
  type: list
  elements: str
"""

import hashlib
from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms, variables=None, **kwargs):
        """One checksum for each path."""
        return [self._checksum(term, variables or {}) for term in terms]

    def _checksum(self, term, variables):
        path = self.find_file_in_search_path(variables, "files", term, ignore_missing=True) or term
        try:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()
        except OSError as error:
            raise AnsibleLookupError(
                f"cannot read {path or 'a file without a name'} on the controller: {error.strerror}"
            ) from error
