#!/usr/bin/python
# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_status
short_description: Compute the progress of a rollout, and whether its next batch may begin
version_added: 1.0.0
author:
  - sockredir contributors (!UNKNOWN)
description:
  - Counts the outcomes in the fact C(sockredir_rollout) of the hosts of a rollout against the failure budget.
  - It talks to no host. C(playbooks/rollout_sockredir.yml) runs it once when a batch begins and when it ends.
options:
  hosts:
    description: The hosts that the rollout should change.
    type: list
    elements: str
    required: true
  fleet:
    description: How many hosts it has checked; a percentage in O(budget) refers to these.
    type: int
    required: true
  budget:
    description: How many hosts may fail or be lost, as a number or a percentage.
    type: str
    required: true
  serial:
    description: The play's C(serial).
    type: list
    elements: str
    required: true
  started:
    description: When the rollout began, in seconds since 1970.
    type: float
    required: true
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
  diff_mode:
    support: none
  platform:
    platforms: all
seealso:
  - module: ebpf.sockredir.fleet_report
"""

EXAMPLES = r"""
- name: Compute the state of the rollout
  ebpf.sockredir.rollout_status:
    hosts: "{{ groups['sockredir_rollout_todo'] }}"
    fleet: 120
    budget: 5%
    serial: [5%, 20%, 100%]
    started: "{{ sockredir_rollout_started }}"
  run_once: true
  register: sockredir_rollout_status

- name: Begin no further batch once the budget is exceeded
  ansible.builtin.meta: end_batch
  when: sockredir_rollout_status.stop
"""

RETURN = r"""
stop:
  description: Whether no further batch may begin.
  returned: success
  type: bool
  sample: false
why:
  description: Why not; null if one may.
  returned: success
  type: str
  sample: 7 of 120 hosts failed, the budget is 6
spent:
  description: How many hosts failed, were restored or were lost.
  returned: success
  type: int
  sample: 1
batch:
  description: The number of this batch in its play.
  returned: success
  type: int
  sample: 2
batches:
  description: How many batches the play has.
  returned: success
  type: int
  sample: 3
size:
  description: How many hosts this batch has.
  returned: success
  type: int
  sample: 24
progress:
  description: Hosts done and failed, time so far and time left, in one line.
  returned: success
  type: str
  sample: 7 of 120 hosts done, 1 failed (budget 6), 4 min so far, about 65 min left
"""
