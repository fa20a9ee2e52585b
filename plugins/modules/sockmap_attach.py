#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_attach
short_description: Attach a pinned program to a cgroup or to a sockmap
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Attaches a sock_ops program, or one for C(connect), C(sendmsg), C(recvmsg), C(getpeername), C(getsockname) or
    C(getsockopt), to a cgroup, an sk_msg program or sk_skb stream verdict to a sockhash or sockmap, or an sk_lookup
    program to a network namespace, and detaches it again. The attach type follows from the program.
  - A program that has been loaded again replaces the old one in one step, so that no connection is missed.
  - Attachments that this module did not make stay as they are. A cgroup or a network namespace can hold several, and
    RV(foreign) lists the others; a map holds only one program of each type, so another program in that place is an
    error.
options:
  program:
    description: Path of the program's pin.
    type: path
  programs:
    description:
      - Paths of the pins of several programs for the same place, instead of O(program).
      - They are attached, or detached, in this order and in one change; if that fails for one, none is changed.
    type: list
    elements: path
    version_added: 1.1.0
  cgroup:
    description:
      - The cgroup, as an absolute path or relative to the cgroup2 mount; V(/) is the root cgroup, the whole host.
      - Programs attached to a cgroup see the sockets of processes in it and in the cgroups below it.
    type: str
  create_cgroup:
    description:
      - Whether to create O(cgroup) if it is missing. O(state=absent) removes it again once it is empty.
      - Where systemd runs, and O(cgroup) is that of a slice, the slice is started, so that systemd keeps its cgroup.
    type: bool
    default: false
  map:
    description: Path of the pin of a sockhash or sockmap.
    type: path
  netns:
    description:
      - File of a network namespace, such as V(/run/netns/blue); V(/proc/self/ns/net) is the one of this run.
    type: path
    version_added: 1.1.0
  method:
    description:
      - V(link) attaches with a pinned link, V(legacy) without one.
      - V(auto) keeps an existing attachment as it is; a new one uses a link on a cgroup if the kernel has such links
        (Linux 5.7), otherwise V(legacy). A network namespace has links only.
    type: str
    choices: [auto, link, legacy]
    default: auto
  needs:
    description:
      - What the kernel must do correctly for the program. This is tested; if the kernel fails, or cannot be tested,
        the program is not attached, which is not a failure. RV(attachment.met) says so.
      - V(one_queue) is for stream verdicts that let bytes pass to their own socket. On kernels without b40cc5adaa80
        they make a reader miss bytes that come by TCP after redirected ones.
      - The manifest keeps the result. The test is repeated after each boot, and at each run until it passes.
    type: str
    choices: [one_queue]
  state:
    description: Whether the program should be attached.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - ebpf.sockredir.attributes
  - ebpf.sockredir.directories.state
  - ebpf.sockredir.directories.lock
notes:
  - Two runs at the same time take turns.
  - In check mode, something that an earlier task of the same play would have created may be missing; RV(notes) says
    what therefore cannot be known.
seealso:
  - module: ebpf.sockredir.sockmap_program
  - module: ebpf.sockredir.sockmap_info
"""

EXAMPLES = r"""
- name: Attach the program that sees new connections to a slice
  ebpf.sockredir.sockmap_attach:
    program: /sys/fs/bpf/sockredir/sockops
    cgroup: sockredir.slice
    create_cgroup: true

- name: Attach the program that decides on each message to a map
  ebpf.sockredir.sockmap_attach:
    program: /sys/fs/bpf/sockredir/verdict
    map: /sys/fs/bpf/sockredir/peers

- name: Attach the program that keeps TCP bytes and redirected bytes in one queue
  ebpf.sockredir.sockmap_attach:
    program: /sys/fs/bpf/sockredir/receive
    map: /sys/fs/bpf/sockredir/peers
    needs: one_queue

- name: Attach all programs that a proxy's cgroup needs, or none
  ebpf.sockredir.sockmap_attach:
    programs:
      - /sys/fs/bpf/sockredir/connect4
      - /sys/fs/bpf/sockredir/connect6
      - /sys/fs/bpf/sockredir/claims
      - /sys/fs/bpf/sockredir/getsockopt
    cgroup: sockredir.slice/sockredir-proxy.slice
    create_cgroup: true

- name: Attach the program that hands connections from outside to a proxy
  ebpf.sockredir.sockmap_attach:
    program: /sys/fs/bpf/sockredir/inbound
    netns: /proc/self/ns/net

- name: Detach a program
  ebpf.sockredir.sockmap_attach:
    program: /sys/fs/bpf/sockredir/sockops
    cgroup: sockredir.slice
    state: absent
"""

RETURN = r"""
attachment:
  description:
    - The attachment as the manifest has it; V(null) if there is none. Ids are unknown in check mode.
    - With O(programs), that of the last one. RV(attachments) has all of them.
  returned: success
  type: dict
  contains:
    program:
      description: Path of the program's pin.
      type: str
    program_id:
      description: The kernel's id of the program.
      type: int
    cgroup:
      description: Absolute path of the cgroup.
      type: str
    cgroup_id:
      description: The kernel's id of the cgroup.
      type: int
    map:
      description: Path of the map's pin.
      type: str
    map_id:
      description: The kernel's id of the map.
      type: int
    netns:
      description: File of the network namespace.
      type: str
    netns_ino:
      description: Inode of the network namespace.
      type: int
    attach_type:
      description:
        - Such as V(cgroup_sock_ops), V(sk_msg_verdict) or V(sk_lookup); V(null) if the program is not there yet.
      type: str
    method:
      description: V(link) or V(legacy).
      type: str
    link_pin:
      description: Path of the link's pin.
      type: str
    link_id:
      description: The kernel's id of the link.
      type: int
    needs:
      description: As O(needs).
      type: str
    met:
      description: Whether the kernel passes that test; if not, the program is not attached. V(null) without O(needs).
      type: bool
  sample:
    program: /sys/fs/bpf/sockredir/sockops
    program_id: 371
    cgroup: /sys/fs/cgroup/sockredir.slice
    cgroup_id: 4711
    map: null
    map_id: null
    netns: null
    netns_ino: null
    attach_type: cgroup_sock_ops
    method: link
    link_pin: /sys/fs/bpf/sockredir/link_sockops_7f3e21aa
    link_id: 97
    needs: null
    met: null
attachments:
  description: The attachment of each program, in the order of O(programs).
  returned: success
  type: list
  elements: dict
  version_added: 1.1.0
  sample: []
foreign:
  description: Other programs on the same cgroup or network namespace; they are never touched.
  returned: success
  type: list
  elements: dict
  contains:
    program_id:
      description: The kernel's id of the program.
      type: int
    method:
      description: V(link) or V(legacy).
      type: str
    link_id:
      description: The kernel's id of the link; V(null) for V(legacy).
      type: int
  sample: []
notes:
  description: What check mode cannot know yet, and whether the program is not attached because of O(needs).
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
    "program": {"type": "path"},
    "programs": {"type": "list", "elements": "path"},
    "cgroup": {"type": "str"},
    "create_cgroup": {"type": "bool", "default": False},
    "map": {"type": "path"},
    "netns": {"type": "path"},
    "method": {"type": "str", "choices": ["auto", "link", "legacy"], "default": "auto"},
    "needs": {"type": "str", "choices": ["one_queue"]},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "state_dir": {"type": "path", "default": "/var/lib/sockredir"},
    "lock_timeout": {"type": "int", "default": 60},
}


def wanted(options, check):
    """The attachments that a task asks for."""
    from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.hooks import CGROUP, KINDS, MAP
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import (
        observe as attachment_observe,
    )
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted

    kind = next(kind for kind in KINDS if options[kind] is not None)
    target = attachment_observe.cgroup(options[kind]) if kind == CGROUP else options[kind]
    return [
        Wanted(
            program=os.path.realpath(program),
            kind=kind,
            # A link to a namespace's file stays one: /proc/self is another process each time.
            target=os.path.realpath(target) if kind == MAP else target,
            method=options["method"],
            present=options["state"] == "present",
            create_cgroup=options["create_cgroup"],
            start_slice=options["create_cgroup"],
            check=check,
            needs=options["needs"],
        )
        for program in ([options["program"]] if options["programs"] is None else options["programs"])
    ]


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        mutually_exclusive=[("cgroup", "map", "netns"), ("program", "programs")],
        required_one_of=[("cgroup", "map", "netns"), ("program", "programs")],
        supports_check_mode=True,
    )
    installed_bytecode.install(module.params["state_dir"])
    from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import diff
    from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import change as attachment

    try:
        asked = wanted(module.params, module.check_mode)
        if not asked:
            raise SockredirError("programs: the list is empty", "name at least one program's pin")
        results = attachment.ensure_all(asked, module.params["state_dir"], wait_seconds=module.params["lock_timeout"])
    except SockredirError as error:
        module.fail_json(msg=str(error), details=error.detail)
    steps = [step for result in results for step in result.steps]
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    for note in notes:
        module.warn(note)
    module.exit_json(
        changed=bool(steps),
        diff=diff(steps),
        attachment=results[-1].record,
        attachments=[result.record for result in results if result.record],
        foreign=[each._asdict() for result in results for each in result.foreign],
        notes=notes,
    )


if __name__ == "__main__":
    main()
