#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_program
short_description: Compile, load and pin the programs that redirect sockets
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
- Compiles a C file of sock_ops, sk_msg and sk_skb programs on the target, or uses an object file, loads it into the
    kernel and pins its programs and maps.
  - Loading what is already loaded changes nothing and compiles nothing. A new source, object or configuration takes
    over the pins of the old one in one step and keeps using the pinned maps, so that live connections are not
    disturbed. They finish on the old programs, which RV(draining) lists until they are gone.
  - Programs are loaded, not attached; that is what M(ebpf.sockredir.sockmap_attach) does.
options:
  name:
    description: Name of the object in the manifest; up to 32 letters, digits, V(-) and V(_).
    type: str
    required: true
  src:
    description:
      - Path on the target of a C file for clang or bcc, or of an object file. Required with O(state=present).
      - The pins are named after the programs and maps in it.
    type: path
  compiler:
    description:
      - V(clang) compiles for libbpf with CO-RE; it needs libbpf's headers.
      - V(bcc) is the distribution's BCC; it needs the headers of the running kernel.
      - V(auto) uses clang if it is installed, otherwise bcc.
      - An object file needs none.
    type: str
    choices: [auto, clang, bcc]
    default: auto
  defines:
    description: Macros for the C preprocessor; V(null) or V(true) defines a bare name, V(false) omits it.
    type: dict
    default: {}
  config:
    description: Values of the programs' C(const volatile) variables, by name.
    type: dict
    default: {}
  max_entries:
    description: Maximum number of entries by map name; for a ring buffer, its size in bytes.
    type: dict
    default: {}
  checksum:
    description: SHA-256 of O(src), with or without the prefix C(sha256:). A file with another checksum is refused.
    type: str
  on_incompatible_map:
    description:
      - What to do if a pinned map has another type, size or layout than the new object needs.
      - V(fail) reports each difference and changes nothing.
      - V(recreate) pins a new, empty map instead. Live connections finish on the old one.
    type: str
    choices: [fail, recreate]
    default: fail
  state:
    description:
      - V(present) loads and pins.
      - V(absent) unpins what the manifest has under O(name). No live connection loses a byte; RV(draining) lists what
        the connections still use. The programs must be detached first.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - ebpf.sockredir.attributes
  - ebpf.sockredir.directories.pins
  - ebpf.sockredir.directories.state
  - ebpf.sockredir.directories.lock
notes:
  - In check mode, earlier tasks of the same play have changed nothing; RV(notes) says what therefore cannot be known.
seealso:
  - module: ebpf.sockredir.sockmap_attach
  - module: ebpf.sockredir.bpffs_pin
  - module: ebpf.sockredir.sockmap_info
"""

EXAMPLES = r"""
- name: Load a pair of programs from C
  ebpf.sockredir.sockmap_program:
    name: sockredir
    src: /usr/local/src/sockredir/sockredir.bpf.c
    max_entries:
      peers: 131072

- name: Load an object that was compiled elsewhere
  ebpf.sockredir.sockmap_program:
    name: sockredir
    src: /var/cache/sockredir.bpf.o
    checksum: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

- name: Remove the programs
  ebpf.sockredir.sockmap_program:
    name: sockredir
    state: absent
"""

RETURN = r"""
programs:
  description: The programs by name.
  returned: success
  type: dict
  contains:
    id:
      description: The kernel's id; V(null) in check mode if it is not loaded.
      type: int
    type:
      description: V(sock_ops), V(sk_msg) or V(sk_skb).
      type: str
    tag:
      description: The kernel's tag of the instructions.
      type: str
    pin:
      description: Path of the pin.
      type: str
  sample:
    verdict: {id: 371, type: sk_msg, tag: 0bf1efe802cd90a4, pin: /sys/fs/bpf/sockredir/verdict}
maps:
  description: The maps by name.
  returned: success
  type: dict
  contains:
    id:
      description: The kernel's id; V(null) in check mode if it does not exist yet.
      type: int
    type:
      description: The map's type.
      type: str
    pin:
      description: Path of the pin.
      type: str
  sample:
    peers: {id: 12, type: sockhash, pin: /sys/fs/bpf/sockredir/peers}
digest:
  description: Identity of the loaded programs, a digest of object, configuration and sizes.
  returned: success
  type: str
  sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
compiler:
  description: What compiled the object; V(object) if an object file was used as it is.
  returned: success
  type: str
  sample: clang
object:
  description: Path of the stored object.
  returned: success
  type: str
  sample: /var/lib/sockredir/objects/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.o
draining:
  description: Replaced or removed programs that are still in use; each goes away with the last connection that uses it.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The program's name.
      type: str
    program_id:
      description: The kernel's id.
      type: int
    since:
      description: When it was replaced or removed.
      type: str
  sample: [{name: verdict, program_id: 371, since: '2026-01-31T10:00:00Z'}]
notes:
  description: What check mode cannot know yet, and warnings of the compiler.
  returned: success
  type: list
  elements: str
  sample: []
details:
  description: The full output of the compiler, libbpf and the kernel's verifier.
  returned: failure
  type: str
  sample: ''
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.sockredir.plugins.module_utils import installed_bytecode

ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "src": {"type": "path"},
    "compiler": {"type": "str", "choices": ["auto", "clang", "bcc"], "default": "auto"},
    "defines": {"type": "dict", "default": {}},
    "config": {"type": "dict", "default": {}},
    "max_entries": {"type": "dict", "default": {}},
    "checksum": {"type": "str"},
    "on_incompatible_map": {"type": "str", "choices": ["fail", "recreate"], "default": "fail"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "lock_timeout": {"type": "int", "default": 60},
    "pin_dir": {"type": "path", "default": "/sys/fs/bpf/sockredir"},
    "state_dir": {"type": "path", "default": "/var/lib/sockredir"},
}


def ensure(options, check):
    """What the task asks for, done or only planned."""
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source

    if options["state"] == "absent":
        places = options["pin_dir"], options["state_dir"]
        return program.absent(options["name"], *places, check, wait_seconds=options["lock_timeout"])
    request = program_source.Options(
        name=options["name"],
        pin_dir=options["pin_dir"],
        state_dir=options["state_dir"],
        src=options["src"],
        compiler=options["compiler"],
        defines=options["defines"],
        config=options["config"],
        max_entries=options["max_entries"],
        checksum=options["checksum"] or "",
        recreate=options["on_incompatible_map"] == "recreate",
    )
    return program.present(request, check, wait_seconds=options["lock_timeout"])


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ["src"])],
        supports_check_mode=True,
    )
    installed_bytecode.install(module.params["state_dir"])
    from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import diff
    from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError

    try:
        result = ensure(module.params, module.check_mode)
    except SockredirError as error:
        module.fail_json(msg=str(error), details=error.detail)
    for note in result.notes:
        module.warn(note)
    module.exit_json(
        changed=bool(result.plan),
        diff=diff(result.plan),
        programs=result.programs,
        maps=result.maps,
        digest=result.digest,
        compiler=result.compiler,
        object=result.object,
        draining=result.draining,
        notes=result.notes,
    )


if __name__ == "__main__":
    main()
