# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which programs beside an attachment are somebody else's."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.model import Attached
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import drift
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest

OWN, CLAIMS, OTHER = Attached(1, "link", 11), Attached(2, "link", 12), Attached(3, "legacy")
PROGRAMS = {"sockredir": {"program_ids": {"sockops": 1}}, "intercept": {"program_ids": {"claims": 2}}}


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ({}, {}),
        ({"/c": [CLAIMS, OWN]}, {}),
        ({"/c": [CLAIMS, OTHER], "/d": [OWN]}, {"/c": [OTHER]}),
    ],
)
def test_what_both_programs_of_a_cgroup_have_attached_is_not_foreign(found, kept):
    document = {**manifest.empty("/b"), "programs": PROGRAMS}
    assert drift.without_own(found, document) == kept


def test_ids_of_an_earlier_boot_say_nothing():
    document = {**manifest.empty("/b"), "programs": PROGRAMS, "boot_id": "earlier"}
    assert drift.without_own({"/c": [OWN]}, document) == {"/c": [OWN]}
