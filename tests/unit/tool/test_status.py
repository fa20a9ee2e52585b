# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``sockredirctl status`` prints."""

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool.status import lines

GONE = {"kind": "pin_missing", "subject": "/sys/fs/bpf/x", "before": None, "after": {"id": 12}}


@pytest.mark.parametrize(("number", "last"), [(1, "1 difference"), (2, "2 differences")])
def test_the_last_line_counts_the_differences(number, last):
    said = lines({"enabled": False, "as_manifest": False, "drift": [GONE] * number})
    assert said == ['pin_missing: /sys/fs/bpf/x: absent -> {"id": 12}'] * number + [last]
