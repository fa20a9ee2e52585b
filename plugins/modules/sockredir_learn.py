#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sockredir_learn
short_description: Learn which server ports would gain from redirection, and which would break
version_added: 1.1.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Watches for some seconds what programs do on their TCP connections, as C(sockredirctl learn) does, and returns a
    verdict for each server port. It changes nothing, and needs nothing installed except the requirements.
  - It does the same in check mode.
options:
  source:
    description: The C source of the programs, as P(ebpf.sockredir.c_source#lookup) reads it from C(bpf/learn.bpf.c).
    type: str
    required: true
  redirection:
    description:
      - The C source of the programs that redirect, as P(ebpf.sockredir.c_source#lookup) reads it from
        C(bpf/sockredir.bpf.c), to measure for some seconds what they gain on this host, after the watch and in separate
        cgroups. It is not needed on a host that was measured when it was enabled.
      - Without it the gains are an estimate from another machine.
    type: str
  state_dir:
    description: Directory with the manifest of an enabled host.
    type: path
    default: /var/lib/sockredir
  seconds:
    description: How long to watch.
    type: float
    default: 60
  cgroup:
    description: Watch only programs in this cgroup, absolute or relative to the cgroup2 mount. By default, all.
    type: str
  wait:
    description: How many seconds to wait for another run on this host.
    type: float
    default: 60
extends_documentation_fragment:
  - ebpf.sockredir.attributes
requirements:
  - clang with libbpf's headers
  - libbpf.so.1
  - A kernel with BTF on x86-64 or arm64, Linux 6.3 or newer or one with fexit
attributes:
  diff_mode:
    support: none
seealso:
  - module: ebpf.sockredir.sockmap_info
"""

EXAMPLES = r"""
- name: Learn for five minutes
  ebpf.sockredir.sockredir_learn:
    source: "{{ lookup('ebpf.sockredir.c_source', 'bpf/learn.bpf.c') }}"
    seconds: 300
  register: learned

- name: Show the variables for the role
  ansible.builtin.debug:
    var: learned.report.variables
"""

RETURN = r"""
report:
  description: What C(sockredirctl learn --json) prints; C(docs/learn.md) describes its keys.
  returned: success
  type: dict
  sample:
    schema_version: 1
    seconds: 60.0
    cgroup:
    lost: 0
    ports:
      - port: 6379
        verdict: accelerate
        gain: 1.3
        reasons: []
        programs: [redis-server, app]
    variables:
      sockredir_ports: [6379]
      sockredir_exclude_ports: []
details:
  description: The full output of the compiler and the kernel.
  returned: failure
  type: str
  sample: ''
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import learning


def written(directory, name, text):
    """The path of a file with this text; None without text."""
    if text is None:
        return None
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    return path


def main():
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "redirection": {"type": "str"},
            "state_dir": {"type": "path", "default": "/var/lib/sockredir"},
            "seconds": {"type": "float", "default": 60},
            "cgroup": {"type": "str"},
            "wait": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    wanted = learning.Options(
        written(module.tmpdir, "learn.bpf.c", options["source"]),
        options["seconds"],
        options["cgroup"],
        options["wait"],
        options["state_dir"],
        written(module.tmpdir, "sockredir.bpf.c", options["redirection"]),
    )
    try:
        report = learning.of_host(wanted, module.debug)
    except SockredirError as error:
        module.fail_json(msg=str(error), details=error.detail)
    module.exit_json(changed=False, report=report)


if __name__ == "__main__":
    main()
