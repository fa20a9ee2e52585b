# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table and the metrics of ``sockredirctl ports``."""

from __future__ import annotations

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.layout import Port
from ansible_collections.ebpf.sockredir.plugins.module_utils.host_report.port_verdict import Host, Open, ports
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn.speeds import ESTIMATE
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool import ports as tool

FOUND = ports(
    {6379: Port(3, 0, 0, 600, 6000, 2, 24)},
    {6379: Open(1, 100, 1000, {"redirected": 2}), 443: Open(1, 8, 0, {"ulp": 1})},
    {6379: ["redis-server"]},
    Host(32, ESTIMATE),
)


def test_a_line_for_each_port_with_the_reason_before_the_words():
    head, first, second = tool.text(FOUND)
    assert head.split() == ["port", "verdict", "gain", "connections", "open", "messages", "bytes", "programs", "why"]
    assert first.split() == ["6379", "accelerate", "1.11x", "6", "1", "700", "6.8", "KiB", "redis-server", "redirected"]
    assert second.split()[:2] == ["443", "leave"]
    assert " ktls: by TCP: another protocol (kTLS)" in second


def test_counters_have_what_has_ended_and_gauges_what_is_open():
    values = {name: (kind, dict(labelled)) for name, kind, _meaning, labelled in tool.metrics(FOUND)}
    assert values["sockredir_port_connections_total"] == ("counter", {'port="443"': 0, 'port="6379"': 5})
    assert values["sockredir_port_bytes_total"] == ("counter", {'port="443"': 0, 'port="6379"': 6000})
    assert values["sockredir_port_messages_total"] == ("counter", {'port="443"': 0, 'port="6379"': 600})
    assert values["sockredir_port_open"] == ("gauge", {'port="443"': 1, 'port="6379"': 1})
    assert values["sockredir_port_open_bytes"] == ("gauge", {'port="443"': 0, 'port="6379"': 1000})
