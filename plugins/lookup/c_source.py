# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup ``ebpf.sockredir.c_source``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: c_source
short_description: Read a C file with the headers that it includes, as one text
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Inserts each header that is included with quotation marks at the place of its first inclusion.
  - C(#line) directives keep the file names and line numbers that a compiler reports.
options:
  _terms:
    description: Paths of C files on the controller.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Copy the programs to a host as one file
  ansible.builtin.copy:
    content: "{{ lookup('ebpf.sockredir.c_source', 'bpf/sockredir.bpf.c') }}"
    dest: /usr/local/src/sockredir.bpf.c
    mode: '0600'
"""

RETURN = r"""
_raw:
  description: The text of each file.
  type: list
  elements: str
"""

from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..plugin_utils.c_source import join


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms, variables=None, **kwargs):
        """One text for each path."""
        try:
            return [join(Path(self.find_file_in_search_path(variables or {}, "files", term))) for term in terms]
        except OSError as error:
            raise AnsibleLookupError(f"c_source: {error}") from error
