#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_object
short_description: Compile the programs that redirect sockets, for other hosts
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Compiles a C file with clang into an object file that M(ebpf.sockredir.sockmap_program) loads elsewhere. Nothing is
    loaded here. Thanks to CO-RE, one object serves all kernels, so a fleet needs one per architecture.
  - It always compiles, but writes only if the result differs; the same source and compiler give the same object.
  - C(sockredir_build=controller) of the role runs it on the controller or on a build host.
options:
  src:
    description: Path of the C file, on the host that compiles.
    type: path
    required: true
  dest:
    description: Path of the object file, on the host that compiles; its directory is created if it is missing.
    type: path
    required: true
  architecture:
    description: Architecture of the target, as C(uname -m) prints it there. The default is that of this host.
    type: str
  defines:
    description: Macros for the C preprocessor; V(null) or V(true) defines a bare name, V(false) omits it.
    type: dict
    default: {}
extends_documentation_fragment:
  - ebpf.sockredir.attributes
requirements:
  - clang with libbpf's headers
attributes:
  diff_mode:
    support: none
seealso:
  - module: ebpf.sockredir.sockmap_program
"""

EXAMPLES = r"""
- name: Compile once on the controller
  ebpf.sockredir.sockmap_object:
    src: bpf/sockredir.bpf.c
    dest: ~/.cache/sockredir/sockredir.x86_64.bpf.o
    architecture: x86_64
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
path:
  description: Absolute path of the object file.
  returned: success
  type: str
  sample: /home/ops/.cache/sockredir/sockredir.x86_64.bpf.o
checksum:
  description: Its SHA-256.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
architecture:
  description: The architecture that it is for.
  returned: success
  type: str
  sample: x86_64
details:
  description: The full output of the compiler.
  returned: failure
  type: str
  sample: ''
"""

import hashlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.sockredir.plugins.module_utils import atomic_file
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import compilers
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError


def differs(path, data):
    """Whether a file is missing or has another content."""
    try:
        with open(path, "rb") as stream:
            return stream.read() != data
    except OSError:
        return True


def write(path, data):
    try:
        atomic_file.make_directory(os.path.dirname(path), 0o777)
    except SockredirError as error:
        raise SockredirError(f"dest: {error.message}", error.cure) from error
    atomic_file.write(path, data)


def main():
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "architecture": {"type": "str"},
            "defines": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    options = module.params
    dest = os.path.abspath(options["dest"])
    architecture = options["architecture"] or os.uname().machine
    try:
        compiled = compilers.compile_clang(options["src"], options["defines"], compilers.target(architecture))
        changed = differs(dest, compiled.data)
        if changed and not module.check_mode:
            write(dest, compiled.data)
    except SockredirError as error:
        module.fail_json(msg=str(error), details=error.detail)
    module.exit_json(
        changed=changed,
        path=dest,
        checksum=hashlib.sha256(compiled.data).hexdigest(),
        architecture=architecture,
    )


if __name__ == "__main__":
    main()
