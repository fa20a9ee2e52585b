#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Write the report of a whole fleet on the controller
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Makes one report of what M(ebpf.sockredir.sockmap_info) returned for every host of the play, and writes it on the
    controller as JSON, JUnit XML and one self-contained HTML page.
  - It talks to no host. Run it once per play, with C(run_once).
  - Hosts that were unreachable or failed are in the report too.
options:
  path:
    description: Directory on the controller, absolute or relative to the current one; it is created if it is missing.
    type: path
    required: true
  name:
    description: Name of the files, without suffix.
    type: str
    default: sockredir-audit
  title:
    description: Heading of the report.
    type: str
    default: sockredir audit
  register:
    description: Name of the variable that the M(ebpf.sockredir.sockmap_info) task registered.
    type: str
    default: sockredir_audit
  formats:
    description: What to write.
    type: list
    elements: str
    choices: [json, junit, html]
    default: [json, junit, html]
  query:
    description: A JMESPath expression over the report; see P(ebpf.sockredir.report_query#filter).
    type: str
    default: ''
  rollout:
    description: Makes it the report of a rollout, from the fact C(sockredir_rollout) of each host.
    type: dict
    suboptions:
      budget:
        description: How many hosts may fail, as a number or as a percentage of the play's hosts.
        type: str
        required: true
      why:
        description: Why the rollout stopped, if not because of its budget.
        type: str
        default: ''
extends_documentation_fragment:
  - action_common_attributes
  - action_common_attributes.flow
attributes:
  action:
    support: full
  async:
    support: none
  bypass_host_loop:
    support: none
  check_mode:
    support: full
    details: In check mode the report is made but no file is written.
  diff_mode:
    support: none
  platform:
    platforms: all
seealso:
  - module: ebpf.sockredir.sockmap_info
  - plugin: ebpf.sockredir.report_query
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Collect the state of each host
  ebpf.sockredir.sockmap_info:
  register: sockredir_audit
  ignore_unreachable: true
  ignore_errors: true

- name: Write the report
  ebpf.sockredir.fleet_report:
    path: reports
    query: "hosts[?status=='drifted'].name"
  run_once: true
"""

RETURN = r"""
summary:
  description: The totals in one line.
  returned: success
  type: str
  sample: '200 hosts: 3 drifted, 1 unreachable, 196 compliant'
totals:
  description: Number of hosts, in total and per status.
  returned: success
  type: dict
  sample: {hosts: 200, failed: 0, unreachable: 1, drifted: 3, unsupported: 0, not_enabled: 0, compliant: 196}
rollout:
  description: What the rollout did, see C(docs/report-schema.md); null in an audit.
  returned: success
  type: dict
  sample: {state: finished, why: null, budget: 6, spent: 1, batches: 4, totals: {enabled: 119, restored: 1}}
hosts:
  description: Names of the hosts per status.
  returned: success
  type: dict
  sample: {drifted: [web3, web9]}
files:
  description: The files written.
  returned: success
  type: list
  elements: str
  sample: [reports/sockredir-audit.json]
answer:
  description: The answer to O(query); null without one.
  returned: success
  type: raw
  sample: [web3, web9]
"""
