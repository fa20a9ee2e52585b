# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import budget as memory
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("64k", 65536),
        ("256 MiB", 256 * MIB),
        ("1GB", 1024 * MIB),
        (" 3 m ", 3 * MIB),
        ("5b", 5),
        (7, 7),
    ],
)
def test_sizes(text, size):
    assert memory.size(text, "memory_budget") == size


@pytest.mark.parametrize("text", ["", "0", "-1", "MiB", "1.5M", "1 XB", "1 MiB x"])
def test_no_sizes(text):
    with pytest.raises(SockredirError, match="memory_budget"):
        memory.size(text, "memory_budget")


def test_the_default_budget_of_this_host():
    assert 0 < memory.default_budget() <= 256 * MIB
