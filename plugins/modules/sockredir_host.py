#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sockredir_host
short_description: Manage what keeps local TCP connections redirected on a host
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Manages everything that stays on the host. It writes the settings that the loaded programs read,
    installs the library and C(sockredirctl), the unit that restores everything at boot, the timer that writes metrics,
    and the drop-ins that move services into the accelerated cgroup, and it commits the manifest of what the host
    should look like.
  - Run it after M(ebpf.sockredir.sockmap_program) and M(ebpf.sockredir.sockmap_attach), which record in the same
    manifest what they have loaded and attached.
requirements:
  - Python 3.8 or newer on the target
  - libbpf.so.1 on the target
options:
  state:
    description:
      - V(present) writes settings, files and unit and commits the manifest.
      - V(absent) returns live connections to TCP, detaches and unpins what the manifest names, and removes
        files, units, drop-ins, the state directory, and the cgroup if it was created for this and is empty.
      - V(rolled_back) returns to the state before the last change, with the objects kept in O(state_dir), without
        compiling. If the last change was committed, another rollback returns to it; otherwise it is dropped.
    type: str
    choices: [present, absent, rolled_back]
    default: present
  mode:
    description:
      - V(enforce) redirects.
      - V(observe) counts what it would redirect, and redirects nothing.
      - V(drain) redirects no new connections and returns live ones to TCP.
    type: str
    choices: [enforce, observe, drain]
    default: enforce
  cgroup:
    description:
      - The accelerated cgroup, absolute or relative to the cgroup2 mount.
      - C(sockredirctl exec) and O(services) put processes there.
    type: str
    default: sockredir.slice
  ports:
    description: Server ports or ranges such as V(8000-8099) to redirect; an empty list means all.
    type: list
    elements: str
    default: []
  exclude_ports:
    description: Server ports or ranges that are never redirected, whatever O(ports) says.
    type: list
    elements: str
    default: []
  cidrs:
    description: Networks within which both ends count as local, besides loopback and an address connected to itself.
    type: list
    elements: str
    default: []
  cross_netns:
    description: Whether to redirect connections between two network namespaces. Both addresses must be in O(cidrs).
    type: bool
    default: false
  memory_budget:
    description:
      - How much unread redirected data the whole host may hold, as bytes or with a unit, such as V(256 MiB).
      - The default is 256 MiB, or half of the first figure of the target's C(net.ipv4.tcp_mem) if that is less.
    type: str
  demote_below:
    description:
      - On a connection that sends only one way, messages of fewer bytes count as small; V(0) means never.
      - If it is not set, the module measures the host, which takes some seconds, and the manifest keeps the size above
        which redirection is faster than TCP there. It measures again on another kernel or CPU, or with another object.
      - If it cannot be measured, there is a warning, and 30000 is used.
    type: int
  demote_after:
    description: After this many small messages in a row without a reply, a connection returns to TCP.
    type: int
    default: 32
  persist:
    description:
      - Whether C(sockredir.service) restores everything at boot.
      - Without systemd on the target this is skipped with a warning.
    type: bool
    default: true
  services:
    description:
      - Systemd services to put in O(cgroup), by a drop-in; services of an earlier run that are no longer listed are
        taken out.
      - O(cgroup) must be a slice.
      - A service that is started by its socket unit gains nothing until that unit is in the slice too; a warning names
        it.
    type: list
    elements: str
    default: []
  textfile_dir:
    description:
      - Directory that the node exporter's textfile collector reads. C(sockredir-metrics.timer) has the counters written
        there, to C(sockredir.prom), every minute.
      - Without it there is no timer; the timer and the file of an earlier run go.
      - Without systemd on the target this is skipped with a warning.
    type: path
    version_added: 1.1.0
  restart_services:
    description:
      - Whether to restart the services that O(services) puts in or takes out.
      - Otherwise they move at their next start; RV(waiting_services) names them until then.
    type: bool
    default: false
  wanted:
    description: Any data to keep in the manifest with this change, such as the play's variables.
    type: dict
    default: {}
  commit:
    description:
      - Whether the change is final. With V(false) the manifest is written, but O(state=rolled_back), and a boot after
        a crash, still treat the change as unfinished; run the module again with V(true) once it is verified.
      - A change that is already committed stays committed.
    type: bool
    default: true
  pin_dir:
    description: Directory on a bpffs with the pins.
    type: path
    default: /sys/fs/bpf/sockredir
  state_dir:
    description: Directory with manifest and objects.
    type: path
    default: /var/lib/sockredir
  prefix:
    description: Directory below which C(lib/sockredir) and C(sbin/sockredirctl) are installed.
    type: path
    default: /usr/local
  unit_dir:
    description: Directory of the host's own systemd units.
    type: path
    default: /etc/systemd/system
extends_documentation_fragment:
  - action_common_attributes
  - ebpf.sockredir.directories.lock
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  platform:
    platforms: linux
notes:
  - Two runs at the same time take turns.
  - In check mode, earlier tasks of the same play have changed nothing; the module says what it would do after them.
seealso:
  - module: ebpf.sockredir.sockmap_program
  - module: ebpf.sockredir.sockmap_attach
  - module: ebpf.sockredir.sockmap_info
"""

EXAMPLES = r"""
- name: Redirect connections to two services only
  ebpf.sockredir.sockredir_host:
    ports: [5432, 6379]
    services: [postgresql.service, redis.service]

- name: Count what would be redirected
  ebpf.sockredir.sockredir_host:
    mode: observe

- name: Roll back the last change
  ebpf.sockredir.sockredir_host:
    state: rolled_back

- name: Remove everything; connections continue over TCP
  ebpf.sockredir.sockredir_host:
    state: absent
"""

RETURN = r"""
committed:
  description: Whether the manifest that the host follows now is final.
  returned: success and O(state) is not V(absent)
  type: bool
  sample: true
settings:
  description: The settings that the programs read.
  returned: success and O(state) is not V(absent)
  type: dict
  sample: {mode: enforce, budget: 268435456, ports: [], exclude_ports: [], cidrs: [], cross_netns: false}
calibration:
  description: Where C(demote_below) of the settings comes from.
  returned: success and O(state) is not V(absent)
  type: dict
  contains:
    source: {description: 'V(given), V(measured), or V(default) if measuring failed.', type: str}
    problem: {description: Why measuring failed., type: str}
    kernel: {description: The kernel that it was measured on., type: str}
    cpu: {description: The CPU model that it was measured on., type: str}
    object_sha256: {description: The object that it was measured with., type: str}
    stream_from: {description: Bytes a message; V(null) if one-way streams are left to TCP at every size., type: int}
    ratios: {description: 'By message size, throughput one way relative to plain TCP; above 1 is faster.', type: dict}
    request_us: {description: 'Microseconds for a request of 64 bytes and its reply, plain and redirected.', type: dict}
    many_us: {description: 'The same on many connections at once, divided by their number.', type: dict}
    plain_us: {description: 'Microseconds for a message one way by plain TCP, by size.', type: dict}
  sample: {source: measured, kernel: 6.12.43, cpu: EPYC, stream_from: 65536, ratios: {'65536': 1.2}}
files:
  description: Tool, library and unit, with the SHA-256 of each; for a symlink, its target.
  returned: success and O(state) is V(present)
  type: dict
  sample:
    /usr/local/sbin/sockredirctl: 6bb0f3d2c1c5d1f0f0c0e5b2a9a5f6b3f1c2d4e5f60718293a4b5c6d7e8f9012
    /usr/local/lib/sockredir/sockredir: sha256:7fb6414e7ec16318e5ffff5f33757de3b2cb31de6bda6ee17c9ad02473a66771
draining:
  description: Programs that live connections still use; each goes away with the last connection that uses it.
  returned: success
  type: list
  elements: dict
  sample: [{name: verdict, program_id: 371, since: '2026-01-31T10:00:00Z'}]
waiting_services:
  description: Services that are in another cgroup than they will be after their next start.
  returned: success
  type: list
  elements: str
  sample: [redis.service]
remaining:
  description: What was not removed, with the reason, such as a cgroup with processes in it.
  returned: success
  type: list
  elements: str
  sample: []
steps:
  description: What was done, or would be in check mode, in order.
  returned: success
  type: list
  elements: dict
  sample: [{kind: settings_changed, subject: settings, before: {mode: drain}, after: {mode: enforce}}]
"""

from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.sockredir.plugins.module_utils import installed_bytecode

if TYPE_CHECKING:
    # Not used here: what travels with this module is installed on the host, where an audit finds its byte code.
    from ansible_collections.ebpf.sockredir.plugins.module_utils.host import preflight  # noqa: F401
    from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report import report  # noqa: F401

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "absent", "rolled_back"], "default": "present"},
    "mode": {"type": "str", "choices": ["enforce", "observe", "drain"], "default": "enforce"},
    "cgroup": {"type": "str", "default": "sockredir.slice"},
    "ports": {"type": "list", "elements": "str", "default": []},
    "exclude_ports": {"type": "list", "elements": "str", "default": []},
    "cidrs": {"type": "list", "elements": "str", "default": []},
    "cross_netns": {"type": "bool", "default": False},
    "memory_budget": {"type": "str"},
    "demote_below": {"type": "int"},
    "demote_after": {"type": "int", "default": 32},
    "persist": {"type": "bool", "default": True},
    "services": {"type": "list", "elements": "str", "default": []},
    "textfile_dir": {"type": "path"},
    "restart_services": {"type": "bool", "default": False},
    "wanted": {"type": "dict", "default": {}},
    "commit": {"type": "bool", "default": True},
    "lock_timeout": {"type": "int", "default": 60},
    "pin_dir": {"type": "path", "default": "/sys/fs/bpf/sockredir"},
    "state_dir": {"type": "path", "default": "/var/lib/sockredir"},
    "prefix": {"type": "path", "default": "/usr/local"},
    "unit_dir": {"type": "path", "default": "/etc/systemd/system"},
}


def made_documents(places, state_dir):
    # This brings the tool, called or not: what is installed on the host is what travels with this module, and that is
    # what it imports.
    from ansible_collections.ebpf.sockredir.plugins.module_utils.tool import documents

    return documents.made(places, state_dir)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    installed_bytecode.install(module.params["state_dir"])
    from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
    from ansible_collections.ebpf.sockredir.plugins.module_utils.host import install
    from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import states

    change_to = {"present": states.present, "absent": states.absent, "rolled_back": states.rolled_back}
    places = install.Places(module.params["prefix"])
    options = {**module.params, "documents": lambda: made_documents(places, module.params["state_dir"])}
    try:
        outcome = change_to[module.params["state"]](options, module.check_mode)
    except SockredirError as error:
        module.fail_json(msg=str(error), details=error.detail)
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**states.returned(outcome))


if __name__ == "__main__":
    main()
