# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import budget
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.settings_value import MIN_BUDGET
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
    assert budget.size(text, "memory_budget") == size


@pytest.mark.parametrize("text", ["", "0", "-1", "MiB", "1.5M", "1 XB", "1 MiB x"])
def test_no_sizes(text):
    with pytest.raises(SockredirError, match="memory_budget"):
        budget.size(text, "memory_budget")


def test_the_default_budget_of_this_host():
    assert 0 < budget.default_budget() <= 256 * MIB


@pytest.mark.parametrize(
    ("tcp_mem", "bytes_of_it"),
    [
        ("287901\t383868\t575802\n", 256 << 20),
        ("10000 13000 20000", 10000 * 4096 // 2),
        ("1 2 3", MIN_BUDGET),
    ],
)
def test_the_budget_of_a_hosts_tcp_mem(tcp_mem, bytes_of_it):
    assert budget.from_tcp_mem(tcp_mem, 4096) == bytes_of_it


@pytest.mark.parametrize("tcp_mem", ["", "many"])
def test_tcp_mem_that_is_nonsense(tcp_mem):
    with pytest.raises(SockredirError):
        budget.from_tcp_mem(tcp_mem, 4096)
