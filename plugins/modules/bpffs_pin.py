#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bpffs_pin
short_description: Mount a bpffs, and manage directories and pins on it
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - A pin keeps a BPF program, map or link alive, under a path on a bpffs. This module mounts a bpffs, creates
    directories on it, pins loaded objects, and removes directories and pins.
  - A bpffs is never mounted if there is one already, because the new one would hide all existing pins.
  - A pin is replaced in one step. A process that opens it finds either the old or the new object, never none.
options:
  path:
    description: The mount point, directory or pin.
    type: path
    required: true
  source:
    description:
      - What to pin, as the kernel's id or the path of another pin; needed for O(state=present).
      - An id needs O(kind).
    type: str
  kind:
    description:
      - What O(source) is. With O(state=absent), only a pin of this kind is removed.
    type: str
    choices: [program, map, link]
  owner:
    description: Name or id of the user who should own O(path).
    type: str
  group:
    description: Name or id of the group that should own O(path).
    type: str
  mode:
    description:
      - The permissions of O(path), in octal, such as V('0700').
      - By default, a new bpffs or directory gets V('0700') and a new pin V('0600'); an existing one keeps its
        permissions.
    type: raw
  state:
    description:
      - V(mounted) mounts a bpffs at O(path), unless O(path) is already on one. An existing mount is left as it is.
      - V(directory) creates a directory, and its parents, on a bpffs.
      - V(present) pins O(source) at O(path).
      - V(absent) removes a pin or an empty directory. It unmounts nothing.
    type: str
    choices: [mounted, directory, present, absent]
    default: present
extends_documentation_fragment:
  - ebpf.sockredir.attributes
  - ebpf.sockredir.directories.lock
  - ebpf.sockredir.directories.state
notes:
  - A bpffs lives in memory. Its pins are gone after a reboot.
  - In check mode, something that an earlier task of the same play would have created may be missing; RV(notes) says
    what therefore cannot be known.
seealso:
  - module: ebpf.sockredir.sockmap_program
  - module: ebpf.sockredir.sockmap_attach
"""

EXAMPLES = r"""
- name: Mount a bpffs
  ebpf.sockredir.bpffs_pin:
    path: /sys/fs/bpf
    state: mounted

- name: Create a directory for pins
  ebpf.sockredir.bpffs_pin:
    path: /sys/fs/bpf/sockredir
    state: directory
    mode: '0700'

- name: Pin a map a second time, readable by another group
  ebpf.sockredir.bpffs_pin:
    path: /sys/fs/bpf/monitoring/counters
    source: /sys/fs/bpf/sockredir/counters
    kind: map
    group: monitoring
    mode: '0640'

- name: Remove that pin
  ebpf.sockredir.bpffs_pin:
    path: /sys/fs/bpf/monitoring/counters
    kind: map
    state: absent
"""

RETURN = r"""
path:
  description: The path, with symbolic links above its last part resolved.
  returned: success
  type: str
  sample: /sys/fs/bpf/sockredir
kind:
  description: V(directory), V(program), V(map) or V(link), before the change in check mode; V(null) for nothing.
  returned: success
  type: str
  sample: map
id:
  description: The kernel's id of what is pinned.
  returned: success
  type: int
  sample: 42
mount_point:
  description: Mount point of the filesystem that O(path) is on.
  returned: success
  type: str
  sample: /sys/fs/bpf
notes:
  description: What check mode cannot know yet, and bpffs stacked on bpffs.
  returned: success
  type: list
  elements: str
  sample: []
details:
  description: More about a failure, such as what could not be undone.
  returned: failure
  type: str
  sample: ''
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.sockredir.plugins.module_utils import installed_bytecode

ARGUMENTS = {
    "path": {"type": "path", "required": True},
    "source": {"type": "str"},
    "kind": {"type": "str", "choices": ["program", "map", "link"]},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
    "state": {"type": "str", "choices": ["mounted", "directory", "present", "absent"], "default": "present"},
    "state_dir": {"type": "path", "default": "/var/lib/sockredir"},
    "lock_timeout": {"type": "int", "default": 60},
}


def wanted(options, check):
    """The mount, directory or pin that a task asks for."""
    from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.pin import change as pin
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.pin import observe as pin_observe
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.pin.plan import Access, Wanted

    source = options["source"]
    if source is not None and source.isdigit() and options["kind"] is None:
        raise SockredirError(
            f"source: {source} is an id, but its kind is not given", "set kind to program, map or link"
        )
    if source is not None and not source.isdigit():
        source = os.path.abspath(source)
    access = Access(pin.user_id(options["owner"]), pin.group_id(options["group"]), pin.permissions(options["mode"]))
    return Wanted(pin_observe.real_path(options["path"]), options["state"], options["kind"], source, access, check)


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS, required_if=[("state", "present", ["source"])], supports_check_mode=True
    )
    installed_bytecode.install(module.params["state_dir"])
    from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import diff
    from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.pin import change as pin

    try:
        asked = wanted(module.params, module.check_mode)
        result = pin.ensure(asked, module.params["state_dir"], wait_seconds=module.params["lock_timeout"])
    except SockredirError as error:
        module.fail_json(msg=str(error), details=error.detail)
    for note in result.notes:
        module.warn(note)
    here = result.observed.here
    module.exit_json(
        changed=bool(result.steps),
        diff=diff(result.steps),
        path=asked.path,
        kind=here.kind if here else None,
        id=here.number if here else None,
        mount_point=result.observed.mount_point,
        notes=result.notes,
    )


if __name__ == "__main__":
    main()
