# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rule is for the same destinations in Python as in the kernel: the table is that of the test on the kernel."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept_match
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End, Rule
from support.interception import FAR4, FAR6, RULES

BOTH = (End("127.0.0.1", 15001), End("::1", 15001))


@pytest.mark.parametrize(("values", "asked", "meant"), RULES)
def test_what_a_rule_is_for(values, asked, meant):
    assert intercept_match.is_for(Rule(1, 1, BOTH, 1, **values), End(*asked)) is meant


@pytest.mark.parametrize(
    "asked", ["224.0.0.1", "169.254.1.1", "255.255.255.255", "fe80::1", "ff02::1", "::", "0.0.0.0"]
)
def test_what_never_leaves_the_link(asked):
    assert not intercept_match.is_for(Rule(1, 1, BOTH, 1), End(asked, 80))


RANGE = ((80, 80), (8000, 8099))


@pytest.mark.parametrize(
    ("before", "values", "asked"),
    [
        ([], {}, End("192.0.2.1", 9)),
        ([], {"ports": RANGE}, End("192.0.2.1", 80)),
        ([], {"exclude_ports": ((1, 65000),)}, End("192.0.2.1", 65001)),
        ([], {"exclude_cidrs": ("192.0.2.0/24",)}, End("198.51.100.1", 9)),
        ([], {"cidrs": ("10.1.0.0/16",)}, End("10.1.255.254", 9)),
        ([], {"cidrs": ("10.1.2.3/32",)}, End("10.1.2.3", 9)),
        ([], {"cidrs": ("10.1.2.2/31",), "exclude_cidrs": ("10.1.2.2/32",)}, End("10.1.2.3", 9)),
        ([], {"cidrs": ("2001:db8::/32",)}, None),
        ([], {"ports": ((80, 80),), "exclude_ports": ((80, 80),)}, None),
        # The rule before it takes what it is for itself.
        ([{"ports": ((9, 9),)}], {}, End("192.0.2.1", 65000)),
        ([{"ports": ((80, 80),)}], {"ports": RANGE}, End("192.0.2.1", 8099)),
        ([{"cidrs": ("192.0.2.0/24",)}], {}, End("198.51.100.1", 9)),
        ([{}], {}, None),
    ],
)
def test_a_destination_to_try_a_rule_with(before, values, asked):
    rules = [Rule(1, 1, BOTH, 1, **each) for each in (*before, values)]
    assert intercept_match.example(rules, len(before), 4) == asked
    if asked:
        assert intercept_match.is_for(rules[-1], asked)


def test_a_destination_of_the_other_version():
    assert intercept_match.example([Rule(1, 1, BOTH, 1)], 0, 6) == End("2001:db8::1", 9)
    assert intercept_match.example([Rule(1, 1, BOTH[:1], 1)], 0, 6) is None


def test_the_proxy_by_its_own_name_and_a_family_without_an_address():
    rule = Rule(1, 1, BOTH[:1], 1, cidrs=("127.0.0.0/8", "2001:db8::/32"))
    assert not intercept_match.is_for(rule, BOTH[0])
    assert intercept_match.is_for(rule, End("127.0.0.1", 15002))
    assert not intercept_match.is_for(rule, End(FAR6, 80))
    assert not intercept_match.is_for(rule, End(FAR4, 80))
