#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sockredir_intercept
short_description: Set which connections go to which local proxy
version_added: 1.1.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Writes the rules that the programs of C(bpf/intercept.bpf.c) follow. They send connections of some cgroups to a
    local proxy, which can ask for the original destination as after iptables REDIRECT, without iptables.
  - First load the programs with M(ebpf.sockredir.sockmap_program) and attach them with
    M(ebpf.sockredir.sockmap_attach). The guide docs/intercept.md has a playbook.
  - The rules take effect at once and all together, also for programs that already run. Established connections stay
    where they are. The manifest keeps the rules and is committed, so that they are restored at boot if
    M(ebpf.sockredir.sockredir_host) has set up the host.
requirements:
  - Python 3.8 or newer on the target
  - libbpf.so.1 on the target
options:
  rules:
    description: All rules; the first one that matches a connection applies. An empty list means no interception.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the rule in reports.
        type: str
        required: true
      cgroup:
        description:
          - The cgroup whose connections to intercept, absolute or relative to the cgroup2 mount. It must exist.
          - Either this or O(rules[].apps) is needed.
        type: str
      apps:
        description:
          - Systemd services whose connections to intercept, instead of O(rules[].cgroup). They are put into a slice
            below the accelerated one by drop-ins, and restarted if they run elsewhere.
          - Rules that name the same services share a slice; otherwise no service can be in two rules.
        type: list
        elements: str
        default: []
      proxy:
        description:
          - The systemd services that are the proxy, instead of O(rules[].proxy_cgroup). They are put into a slice of
            their own as O(rules[].apps) are, started if they do not run, and have to listen before the rule holds.
        type: list
        elements: str
        default: []
      proxy_cgroup:
        description: The proxy's cgroup. This rule never intercepts connections from it or from cgroups below it.
        type: str
      proxy_user:
        description: The user that the proxy runs as, by name or id, if it has no cgroup of its own.
        type: str
      to:
        description:
          - Where the proxy listens, such as V(15001), V(127.0.0.1:15001) or V([::1]:15001). A port means both loopback
            addresses.
          - A connection over a family without an address here is not intercepted.
        type: list
        elements: str
        default: []
      ports:
        description: Destination ports, or ranges such as V(8000-8099); an empty list means all.
        type: list
        elements: str
        default: []
      exclude_ports:
        description: Destination ports that are never intercepted, whatever O(rules[].ports) says.
        type: list
        elements: str
        default: []
      cidrs:
        description:
          - Destination networks. An empty list means all except loopback, link-local and multicast addresses.
        type: list
        elements: str
        default: []
      exclude_cidrs:
        description: Destination networks that are never intercepted, whatever O(rules[].cidrs) says.
        type: list
        elements: str
        default: []
      when_down:
        description:
          - What happens to a connection if nothing listens at O(rules[].to). With V(refuse) it is refused, as by any
            closed port; with V(direct) it is connected as the program asked.
        type: str
        choices: [refuse, direct]
        default: refuse
      answer:
        description:
          - How the proxy learns the original destination. C(SO_ORIGINAL_DST) and C(IP6T_SO_ORIGINAL_DST) always
            return it; with V(sockname), C(getsockname) returns it too, for proxies that use that.
        type: list
        elements: str
        choices: [original_dst, sockname]
        default: [original_dst]
      udp_dns:
        description:
          - Where datagrams to port 53 go, as in O(rules[].to), with up to three addresses of each family. Those to the
            first name server that a socket asks go to the first address, those to the second to the second; those to
            further ones are not intercepted. So each reply appears to come from the server that was asked.
          - If the list is empty, datagrams are not intercepted.
        type: list
        elements: str
        default: []
      inbound:
        description:
          - Ports, or ranges, at which connections from outside the host go to the proxy at O(rules[].to). What comes
            over the loopback device, or from the address that it is for, is left alone.
          - The program C(inbound) must be attached to the network namespace, which is that of this run. The proxy's
            C(getsockname) is then the original destination, and C(SO_ORIGINAL_DST) tells it too.
          - O(rules[].when_down) says what happens to them if nobody listens. With V(direct) they go where they would
            have gone without the rule.
          - At most 1024 ports in all rules together, each in one rule.
        type: list
        elements: str
        default: []
  cgroup:
    description:
      - The accelerated cgroup, as of M(ebpf.sockredir.sockredir_host). With it, a cgroup of a rule is refused in check
        mode too, unless it exists, is this one or above it, was attached to before, or is a slice that has a
        unit file or that the unit file of a service names. So is a service that systemd does not know.
      - The slices of services are made below it; if it is V(/), below C(sockredir.slice).
      - The default is what the manifest says, and C(sockredir.slice) if there is none.
    type: str
  unit_dir:
    description: Directory for the drop-ins of services.
    type: path
    default: /etc/systemd/system
  restart_services:
    description:
      - Whether to restart services that no rule names any more, so that they leave their slice. Otherwise they do so at
        their next start.
    type: bool
    default: false
  proxies_only:
    description:
      - Only put the proxies of O(rules[].proxy) into their slices, start them, and wait until they listen. The rules do
        not change. Use it between attaching to the cgroups of proxies and to those of their clients.
    type: bool
    default: false
  commit:
    description: Whether this makes the change final, as in M(ebpf.sockredir.sockredir_host).
    type: bool
    default: true
extends_documentation_fragment:
  - ebpf.sockredir.attributes
  - ebpf.sockredir.directories.pins
  - ebpf.sockredir.directories.state
  - ebpf.sockredir.directories.lock
notes:
  - In check mode, programs that earlier tasks of the same play would have loaded may be missing, and without O(cgroup)
    the cgroups of rules too.
seealso:
  - module: ebpf.sockredir.sockmap_program
  - module: ebpf.sockredir.sockmap_attach
"""

EXAMPLES = r"""
- name: Send the connections of the applications through the proxy
  ebpf.sockredir.sockredir_intercept:
    rules:
      - name: web
        cgroup: sockredir.slice/sockredir-apps.slice
        proxy_cgroup: sockredir.slice/sockredir-proxy.slice
        to: [15001]
        ports: [80, 443]
        exclude_cidrs: [10.0.0.0/8]

- name: Send the connections of systemd services through a proxy that is one too
  ebpf.sockredir.sockredir_intercept:
    rules:
      - name: web
        apps: [shop.service, search.service]
        proxy: [haproxy.service]
        to: [15001]

- name: Stop intercepting
  ebpf.sockredir.sockredir_intercept:
    rules: []
"""

RETURN = r"""
rules:
  description: The rules in their canonical form, with the slot that counts their events.
  returned: success
  type: list
  elements: dict
  sample:
    - name: web
      slot: 1
      apps: []
      proxy: []
      cgroup: sockredir.slice/sockredir-apps.slice
      proxy_cgroup: sockredir.slice/sockredir-proxy.slice
      proxy_user: null
      to: ['127.0.0.1:15001', '[::1]:15001']
      ports: ['80', '443']
      exclude_ports: []
      cidrs: []
      exclude_cidrs: [10.0.0.0/8]
      when_down: refuse
      answer: [original_dst]
      udp_dns: []
      inbound: []
waiting_services:
  description: Services that no rule names any more and that leave their slice at their next start.
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.sockredir.plugins.module_utils import installed_bytecode


def _list(**more):
    return {"type": "list", "elements": "str", "default": [], **more}


RULE = {
    "name": {"type": "str", "required": True},
    "apps": _list(),
    "cgroup": {"type": "str"},
    "proxy": _list(),
    "proxy_cgroup": {"type": "str"},
    "proxy_user": {"type": "str"},
    "to": _list(),
    "ports": _list(),
    "exclude_ports": _list(),
    "cidrs": _list(),
    "exclude_cidrs": _list(),
    "when_down": {"type": "str", "choices": ["refuse", "direct"], "default": "refuse"},
    "answer": _list(choices=["original_dst", "sockname"], default=["original_dst"]),
    "udp_dns": _list(),
    "inbound": _list(),
}
ARGUMENTS = {
    "rules": {"type": "list", "elements": "dict", "required": True, "options": RULE},
    "cgroup": {"type": "str"},
    "unit_dir": {"type": "path", "default": "/etc/systemd/system"},
    "restart_services": {"type": "bool", "default": False},
    "proxies_only": {"type": "bool", "default": False},
    "commit": {"type": "bool", "default": True},
    "pin_dir": {"type": "path", "default": "/sys/fs/bpf/sockredir"},
    "state_dir": {"type": "path", "default": "/var/lib/sockredir"},
    "lock_timeout": {"type": "int", "default": 60},
}


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    installed_bytecode.install(options["state_dir"])
    from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import diff
    from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
    from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept import change as intercept

    try:
        wanted = intercept.Options(
            options["rules"],
            options["pin_dir"],
            options["state_dir"],
            options["cgroup"],
            options["unit_dir"],
            options["restart_services"],
            options["proxies_only"],
            options["commit"],
        )
        result = intercept.ensure(wanted, module.check_mode, wait_seconds=options["lock_timeout"])
    except SockredirError as error:
        module.fail_json(msg=str(error), details=error.detail)
    if result.waiting:
        module.warn(f"these services leave their slice at their next start: {', '.join(result.waiting)}")
    shown = {"diff": diff(result.steps), "rules": result.rules, "waiting_services": result.waiting}
    module.exit_json(changed=bool(result.steps), **shown)


if __name__ == "__main__":
    main()
