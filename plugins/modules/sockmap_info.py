#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_info
short_description: Gather information about the redirection of local connections on a host
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Reads what the kernel and the manifest say about a host. It changes nothing, needs nothing but Python, and also
    runs without root; RV(unreadable) names what it then may not read.
  - Whether the kernel has what is needed is tested, such as by loading a program of two instructions, and never
    concluded from its version.
options:
  gather:
    description:
      - What to find out, besides RV(host), RV(enabled) and RV(manifest), which are always returned.
      - V(prerequisites) returns RV(prerequisites), RV(compilers) and RV(advice).
      - V(programs) returns RV(programs), RV(maps), RV(links) and RV(draining).
      - V(attachments) returns RV(attachments) and RV(foreign).
      - V(counters) returns RV(mode), RV(settings), RV(counters), RV(memory), and how many RV(flows) are open.
      - V(flows) returns RV(flows) with the connections and their processes.
      - V(ports) returns RV(ports), which server ports gain from redirection.
      - V(intercepts) returns RV(intercepts), the interception rules, whether their proxies listen, and their counters.
      - V(drift) returns RV(drift), how the host differs from its manifest.
    type: list
    elements: str
    choices: [prerequisites, programs, attachments, counters, flows, ports, intercepts, drift]
    default: [prerequisites, programs, attachments, counters, flows, ports, intercepts, drift]
  wanted:
    description:
      - What the host should do. Adds RV(preflight), which compares that with what was found.
      - Needs V(prerequisites) and V(drift) in O(gather).
    type: dict
    suboptions:
      cgroup:
        description: The cgroup whose sockets to redirect, absolute or relative to the cgroup2 mount.
        type: str
        default: sockredir.slice
      compiler:
        description: The compiler to use on the host; V(none) if the object is compiled elsewhere.
        type: str
        choices: [auto, clang, bcc, none]
        default: auto
      install_packages:
        description: Whether missing packages may be installed on the host.
        type: bool
        default: false
      hooks:
        description: Programs of interception, each with the cgroup to attach it to, in the order of attaching.
        type: list
        elements: list
        default: []
  max_flows:
    description: Maximum number of connections that RV(flows) lists, oldest first.
    type: int
    default: 1000
  pin_dir:
    description:
      - Directory on a bpffs with the pins.
      - The default is what the manifest says, and V(/sys/fs/bpf/sockredir) if there is none.
    type: path
extends_documentation_fragment:
  - ebpf.sockredir.attributes.reads_only
  - ebpf.sockredir.directories.state
seealso:
  - module: ebpf.sockredir.sockmap_program
  - module: ebpf.sockredir.sockmap_attach
"""

EXAMPLES = r"""
- name: Check whether this host meets the prerequisites
  ebpf.sockredir.sockmap_info:
    gather: prerequisites
  register: info

- name: Report everything that is missing
  ansible.builtin.assert:
    that: missing | length == 0
    fail_msg: "{{ missing | map(attribute='cure') | join('; ') }}"
  vars:
    missing: "{{ info.prerequisites | selectattr('scope', 'in', ['load', 'build']) | rejectattr('ok') }}"

- name: Read the counters
  ebpf.sockredir.sockmap_info:
    gather: counters
  register: info

- name: Show how many messages were redirected
  ansible.builtin.debug:
    msg: "{{ info.counters.redirected.messages }} messages, {{ info.flows.open }} connections"
  when: info.counters is not none
"""

RETURN = r"""
schema_version:
  description:
    - The version of what is returned here, 1.
    - It is raised if a key is removed or changes its type or meaning, but not if one is added.
  returned: success
  type: int
  sample: 1
host:
  description: What the host is.
  returned: success
  type: dict
  contains:
    kernel: {description: Release of the running kernel., type: str}
    architecture: {description: The machine., type: str}
    distribution: {description: The distribution's display name., type: str}
    distribution_id: {description: Its C(ID) in os-release., type: str}
    distribution_version: {description: Its C(VERSION_ID) in os-release., type: str}
    family: {description: 'V(debian), V(redhat), V(suse), or empty.', type: str}
    package_manager: {description: 'V(apt), V(dnf), V(zypper), or empty.', type: str}
    boot_id: {description: Changes at each boot., type: str}
    root: {description: Whether the module ran as root., type: bool}
    systemd: {description: Whether systemd runs the host., type: bool}
    cgroup2: {description: Where cgroup2 is mounted; V(null) if it is not., type: str}
    bpffs:
      description: Each bpffs, with its C(mount_point) and whether it is C(reachable), not hidden by another mount.
      type: list
      elements: dict
  sample:
    kernel: 6.1.0-28-amd64
    architecture: x86_64
    distribution: Debian GNU/Linux 12 (bookworm)
    distribution_id: debian
    distribution_version: '12'
    family: debian
    package_manager: apt
    boot_id: 198ab0cf-b657-4c83-8d76-061ee64f317d
    root: true
    systemd: true
    cgroup2: /sys/fs/cgroup
    bpffs: [{mount_point: /sys/fs/bpf, reachable: true}]
pin_dir:
  description: The directory that was looked at for pins.
  returned: success
  type: str
  sample: /sys/fs/bpf/sockredir
state_dir:
  description: The directory that was looked at for the manifest.
  returned: success
  type: str
  sample: /var/lib/sockredir
enabled:
  description: Whether there is a manifest; V(null) if that could not be read.
  returned: success
  type: bool
  sample: true
manifest:
  description: What the manifest says; V(null) if there is none.
  returned: success
  type: dict
  contains:
    damage: {description: What is wrong with it (the rest may then be missing); V(null) for nothing., type: str}
    committed: {description: Whether the last change was finished., type: bool}
    this_boot: {description: Whether the ids in it are of this boot., type: bool}
    pin_dir: {description: Where the pins are., type: str}
    settings: {description: The settings for the programs., type: dict}
    calibration:
      description:
        - 'Where C(demote_below) of the settings comes from: RV(ebpf.sockredir.sockredir_host#module:calibration).'
        - V(null) in a manifest of an earlier version.
      type: dict
    wanted: {description: The role's data., type: dict}
    programs:
      description:
        - By name, C(digest), C(source_digest), C(object_sha256), C(compiler), C(config), C(max_entries), C(pins) and
          C(program_ids).
      type: dict
    attachments: {description: 'As RV(ebpf.sockredir.sockmap_attach#module:attachment).', type: list, elements: dict}
    files: {description: Installed files on the host with their digests., type: dict}
  sample: {damage: null, committed: true, this_boot: true, pin_dir: /sys/fs/bpf/sockredir}
cgroup:
  description: The accelerated cgroup as the manifest has it.
  returned: success
  type: str
  sample: /sys/fs/cgroup/sockredir.slice
pin_directory:
  description: Ownership and permissions of the pin directory; V(null) if there is none.
  returned: success
  type: dict
  contains:
    uid: {description: Its owner., type: int}
    gid: {description: Its group., type: int}
    mode: {description: Its permissions., type: str}
  sample: {uid: 0, gid: 0, mode: '0700'}
sources:
  description:
    - SHA-256 of what the programs are made from, a C source or an object, by file name in C(src) below
      RV(state_dir); V(null) if that may not be read.
  returned: success
  type: dict
  sample: {sockredir.bpf.c: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
version:
  description: The version of the collection that set up the host, if the manifest says it.
  returned: success
  type: str
  sample: 1.0.0
unreadable:
  description: What could not be read, and why.
  returned: success
  type: list
  elements: dict
  contains:
    what: {description: What was to be read., type: str}
    why: {description: The error in one line., type: str}
  sample: []
prerequisites:
  description: Everything that a host needs, met or not.
  returned: O(gather) has V(prerequisites)
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str}
    ok: {description: 'Whether it is met; V(null) if that could not be found out, mostly without root.', type: bool}
    found: {description: What was found., type: str}
    needed: {description: What is needed., type: str}
    cure: {description: 'What to do, with this distribution''s package names; empty if it is met.', type: str}
    scope:
      description:
        - V(load) always matters, V(build) for compiling on the target, V(persist) for surviving a reboot. V(behaviour)
          prevents nothing, but while it is not met, redirected sockets differ more from TCP.
      type: str
  sample:
    - name: libbpf
      ok: false
      found: none
      needed: libbpf.so.1
      cure: apt-get install libbpf1
      scope: load
compilers:
  description: The compilers that can be used on the host.
  returned: O(gather) has V(prerequisites)
  type: list
  elements: str
  sample: [clang, bcc]
advice:
  description: Risks that prevent nothing but that an operator should know, such as a kernel bug in this area.
  returned: O(gather) has V(prerequisites)
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str}
    found: {description: What was found that makes it matter., type: str}
    risk: {description: What can happen., type: str}
    cure: {description: What to do., type: str}
    scope: {description: 'V(any), or V(whole_host) if it only matters for the root cgroup.', type: str}
  sample: []
programs:
  description: Programs pinned in RV(pin_dir).
  returned: O(gather) has V(programs)
  type: list
  elements: dict
  contains:
    pin: {description: Path of the pin., type: str}
    id: {description: The kernel's id., type: int}
    name: {description: The kernel's name of it., type: str}
    type: {description: 'V(sock_ops), V(sk_msg), V(sk_skb) or another.', type: str}
    tag: {description: The kernel's tag of its instructions., type: str}
    digest: {description: Identity that the loader wrote into it; V(null) if it is not this collection's., type: str}
    layout: {description: Version of its maps' layout., type: int}
    map_ids: {description: Ids of the maps it uses., type: list, elements: int}
  sample: []
maps:
  description: Maps pinned in RV(pin_dir).
  returned: O(gather) has V(programs)
  type: list
  elements: dict
  contains:
    pin: {description: Path of the pin., type: str}
    id: {description: The kernel's id., type: int}
    name: {description: The kernel's name of it., type: str}
    type: {description: 'V(sockhash) and so on.', type: str}
    key_size: {description: Bytes., type: int}
    value_size: {description: Bytes., type: int}
    max_entries: {description: Maximum number of entries; bytes for a ring buffer., type: int}
  sample: []
links:
  description: Links pinned in RV(pin_dir).
  returned: O(gather) has V(programs)
  type: list
  elements: dict
  contains:
    pin: {description: Path of the pin., type: str}
    id: {description: The kernel's id., type: int}
    type: {description: 'V(cgroup) and so on.', type: str}
    program_id: {description: Id of the program., type: int}
    cgroup_id: {description: Id of the cgroup; V(null) if that is gone., type: int}
    map_id: {description: Id of the map of a link to a map., type: int}
    netns_ino: {description: Inode of the network namespace of a link to one., type: int}
  sample: []
draining:
  description: Replaced or removed programs that live connections still use.
  returned: O(gather) has V(programs)
  type: list
  elements: dict
  contains:
    name: {description: The program's name., type: str}
    program_id: {description: The kernel's id., type: int}
    since: {description: When it was replaced or removed., type: str}
  sample: [{name: verdict, program_id: 371, since: '2026-01-31T10:00:00Z'}]
attachments:
  description: The actual state of the manifest's attachments.
  returned: O(gather) has V(attachments)
  type: list
  elements: dict
  contains:
    program: {description: Path of the program's pin., type: str}
    pinned_program_id: {description: Id of what is pinned there; V(null) if nothing is., type: int}
    cgroup: {description: Path of the cgroup., type: str}
    map: {description: Path of the map's pin., type: str}
    netns: {description: File of the network namespace., type: str}
    attach_type: {description: 'Such as V(cgroup_sock_ops), V(sk_msg_verdict) or V(sk_lookup).', type: str}
    target_id: {description: Id of the cgroup or map or inode of the namespace; V(null) if it is gone., type: int}
    times: {description: 'How often it is attached there: 1 is correct, 0 is not at all.', type: int}
    withheld: {description: Whether it must not be attached because the kernel does not do what it needs., type: bool}
    program_id: {description: Id of the attached program; V(null) if this collection's is not attached., type: int}
    method: {description: V(link) or V(legacy)., type: str}
    link_id: {description: Id of the link., type: int}
    link_pin: {description: Path of the link's pin; V(null) if there is none., type: str}
  sample: []
foreign:
  description: Other programs on the same cgroups, maps and network namespaces.
  returned: O(gather) has V(attachments)
  type: list
  elements: dict
  contains:
    cgroup: {description: Path of the cgroup., type: str}
    map: {description: Path of the map's pin., type: str}
    netns: {description: File of the network namespace., type: str}
    program_id: {description: Id of the program., type: int}
    name: {description: The kernel's name of it., type: str}
    type: {description: Its type., type: str}
    method: {description: V(link) or V(legacy)., type: str}
    link_id: {description: Id of the link., type: int}
  sample: []
mode:
  description: The mode in effect, V(enforce), V(observe) or V(drain); V(null) if there are no settings.
  returned: O(gather) has V(counters)
  type: str
  sample: enforce
settings:
  description: The settings in effect; V(null) if there are none or they are invalid.
  returned: O(gather) has V(counters)
  type: dict
  sample: {mode: enforce, budget: 268435456, cross_netns: false, include: [], exclude: [], cidrs: []}
settings_trouble:
  description: Why the settings cannot be trusted; empty if they can.
  returned: O(gather) has V(counters)
  type: str
  sample: ''
counters:
  description: By reason, how often it happened (C(messages)) and with how many C(bytes), since the map was created.
  returned: O(gather) has V(counters)
  type: dict
  sample: {redirected: {messages: 1024, bytes: 67108864}}
memory:
  description: Bytes of unread redirected data on the whole host (C(used)), and their limit (C(budget)).
  returned: O(gather) has V(counters)
  type: dict
  sample: {used: 0, budget: 268435456}
flows:
  description: Connections in the map; V(null) if there is no such map.
  returned: O(gather) has V(counters) or V(flows)
  type: dict
  contains:
    open: {description: How many there are., type: int}
    connections:
      description: 'The oldest of them, O(max_flows) at most; V(null) unless O(gather) has V(flows).'
      type: list
      elements: dict
      contains:
        netns: {description: Cookie of the network namespace; 0 for a pair in two namespaces., type: int}
        age: {description: Seconds since it was established., type: float}
        sides:
          description: Its two ends, the client's first.
          type: list
          elements: dict
          contains:
            address: {description: Of this end., type: str}
            port: {description: Of this end., type: int}
            server: {description: Whether this end accepted the connection., type: bool}
            alive: {description: Whether the socket still exists., type: bool}
            left: {description: 'Whether it left the map alive, and is plain TCP.', type: bool}
            pid: {description: Of a process that holds the socket; V(null) if that is unknown., type: int}
            comm: {description: The name of that process., type: str}
            cookie: {description: 'The kernel''s cookie of the socket, as C(ss -e) shows it.', type: int}
            state: {description: 'How its next message goes: V(redirected), V(undecided), or why by TCP.', type: str}
            messages: {description: How many messages it sent., type: int}
            bytes: {description: How many of its bytes were redirected., type: int}
            unread: {description: Upper bound of the bytes that the other end has not read yet., type: int}
  sample: {open: 2, connections: null}
ports:
  description:
    - What the programs have counted for each server port, and a verdict; V(null) if there is no such map.
  returned: O(gather) has V(ports)
  type: list
  elements: dict
  contains:
    port: {description: The server's port., type: int}
    verdict: {description: 'V(accelerate), V(no-gain) or V(leave).', type: str}
    reasons: {description: 'For V(leave), sections of docs/limits.md.', type: list, elements: str}
    programs: {description: The programs that listen there., type: list, elements: str}
    connections: {description: 'How many there were, including those that were left alone.', type: int}
    bytes: {description: How many bytes were redirected., type: int}
    gain: {description: 'For V(accelerate), the speed to expect; 1.0 is plain TCP.', type: float}
    gain_source: {description: 'V(enabled) if measured on this host, V(table) if on another machine.', type: str}
    why: {description: The verdict in words., type: str}
    messages: {description: Messages of connections in the map., type: int}
    open: {description: Connections in the map now., type: int}
    open_messages: {description: Their messages., type: int}
    open_bytes: {description: Their redirected bytes., type: int}
    brief: {description: Connections that ended after an exchange or two., type: int}
    demoted: {description: 'Connections that sent small messages one way, or files.', type: int}
    left_alone: {description: Connections that were not put in the map because their port gains nothing., type: int}
    worth: {description: What redirection has been worth lately; negative if nothing., type: int}
    states: {description: 'Directions of open connections by how their last message went.', type: dict}
  sample: []
intercepts:
  description:
    - The interception rules and what has happened; V(null) if nothing of interception is loaded.
    - Only the network namespace of the module is searched for proxies.
  returned: O(gather) has V(intercepts)
  type: dict
  contains:
    rules:
      description: The rules, in the order in which they apply.
      type: list
      elements: dict
      contains:
        name: {description: Name of the rule., type: str}
        apps: {description: The services that are put into C(cgroup) for the rule., type: list, elements: str}
        cgroup: {description: The cgroup whose connections are intercepted., type: str}
        proxy: {description: The services that are put into C(proxy_cgroup) for the rule., type: list, elements: str}
        proxy_cgroup: {description: The proxy's cgroup; V(null) if only its user identifies it., type: str}
        proxy_user: {description: The user that the proxy runs as; V(null) if the rule names none., type: str}
        to: {description: The proxy's addresses., type: list, elements: str}
        ports: {description: Those that are intercepted; none means all., type: list, elements: str}
        exclude_ports: {description: Those that are not., type: list, elements: str}
        cidrs: {description: Networks that are intercepted., type: list, elements: str}
        exclude_cidrs: {description: Those that are not., type: list, elements: str}
        when_down: {description: 'V(refuse) or V(direct).', type: str}
        answer: {description: How the proxy learns the destination., type: list, elements: str}
        udp_dns: {description: The proxy's addresses for DNS queries., type: list, elements: str}
        inbound: {description: Ports at which connections from outside go to the proxy., type: list, elements: str}
        slot: {description: Index of its counters., type: int}
        listening: {description: 'For each address in C(to), whether something listens there.', type: dict}
        events:
          description:
            - How often each has happened since the rule was written. V(rewritten) are connections sent to the proxy,
              V(claimed) those that it accepted with their destination, V(answered) its requests for a destination,
              V(looped) connections refused to prevent a loop, V(unclaimed) connections that were made to the proxy's
              own address.
            - C(sockredirctl intercepts) explains all of them.
          type: dict
    notes:
      description: What an operator should know of the rules, though it is no difference from the manifest.
      type: list
      elements: dict
      contains:
        kind:
          description:
            - V(not_intercepted), connections that a rule is for and that go by it.
            - V(nat_rule), NAT of the host for the ports of a rule.
            - V(not_looked_at), what could not be found out.
          type: str
        rule: {description: Its name; empty for V(not_looked_at)., type: str}
        found: {description: What was found., type: str}
        cure: {description: What to do about it., type: str}
    other: {description: Events that belong to no rule; V(passed) are connections that no rule matches., type: dict}
    pending: {description: Connections on their way to a proxy., type: int}
  sample: null
preflight:
  description: What the findings mean for O(wanted). The role acts on it.
  returned: O(wanted) is given
  type: dict
  contains:
    missing:
      description: What is needed but missing and may not be installed, in the form of RV(prerequisites).
      type: list
      elements: dict
    packages: {description: Names of the packages to install., type: list, elements: str}
    warnings: {description: 'What may go wrong on this host, and what to do about it.', type: list, elements: str}
    standing:
      description: Whether the host is as its manifest says, with the programs of this collection attached as wanted.
      type: bool
    pins_ready: {description: Whether the pin directory is as it should be as well., type: bool}
    mount_bpffs: {description: Whether a bpffs must be mounted at C(/sys/fs/bpf) for the pins., type: bool}
    hooks:
      description: Programs of interception, each with its cgroup.
      type: dict
      contains:
        attach: {description: Those to attach., type: list, elements: list}
        detach: {description: Those that no rule needs., type: list, elements: list}
  sample: {missing: [], packages: [libbpf1], warnings: [], standing: false, pins_ready: false, mount_bpffs: false}
drift:
  description: How the host differs from its manifest; V(null) if that could not be found out.
  returned: O(gather) has V(drift)
  type: list
  elements: dict
  contains:
    kind:
      description:
        - How it differs, such as V(pin_missing), V(pin_replaced), V(verdict_lost), V(program_replaced),
          V(attachment_missing), V(attached_twice), V(settings_changed), V(object_changed), V(manifest_changed),
          V(file_changed), V(unit_disabled), V(lost_at_reboot), V(leftover), V(proxy_outside),
          V(connect_hook) or V(unfinished).
      type: str
    subject: {description: 'What differs, mostly a path.', type: str}
    before: {description: What was found; V(null) if nothing was., type: raw}
    after: {description: What enabling would turn it into; V(null) if it would be removed., type: raw}
  sample: [{kind: pin_missing, subject: /sys/fs/bpf/sockredir/verdict, before: null, after: {type: sk_msg}}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.sockredir.plugins.module_utils import installed_bytecode

ARGUMENTS = {
    "gather": {
        "type": "list",
        "elements": "str",
        "choices": ["prerequisites", "programs", "attachments", "counters", "flows", "ports", "intercepts", "drift"],
        "default": ["prerequisites", "programs", "attachments", "counters", "flows", "ports", "intercepts", "drift"],
    },
    "wanted": {
        "type": "dict",
        "options": {
            "cgroup": {"type": "str", "default": "sockredir.slice"},
            "compiler": {"type": "str", "choices": ["auto", "clang", "bcc", "none"], "default": "auto"},
            "install_packages": {"type": "bool", "default": False},
            "hooks": {"type": "list", "elements": "list", "default": []},
        },
    },
    "max_flows": {"type": "int", "default": 1000},
    "pin_dir": {"type": "path"},
    "state_dir": {"type": "path", "default": "/var/lib/sockredir"},
}


def preflight(module, options, report):
    """What the report means for what is wanted."""
    lacking = sorted({"prerequisites", "drift"} - set(options["gather"]))
    if lacking:
        module.fail_json(msg=f"wanted: {' and '.join(lacking)} must be gathered for it; add to gather, or omit wanted")
    from ansible_collections.ebpf.sockredir.plugins.module_utils.host import facts, prerequisites
    from ansible_collections.ebpf.sockredir.plugins.module_utils.host.preflight import Wanted, judge

    programs = [program for program, _cgroup in options["wanted"]["hooks"]]
    if programs:
        report["prerequisites"].append(prerequisites.intercept_hooks(facts.intercept_hooks(programs)))
    return judge(Wanted(**options["wanted"]), report)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    installed_bytecode.install(options["state_dir"])
    from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report.report import gather

    report = gather(options["gather"], options["pin_dir"], options["state_dir"], options["max_flows"])
    if options["wanted"]:
        report["preflight"] = preflight(module, options, report)
    module.exit_json(changed=False, **report)


if __name__ == "__main__":
    main()
