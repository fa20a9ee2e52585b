# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps write interception rules, and tell the programs of listeners."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept_rules
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept.plan import (
    Observed,
    Unlisted,
    refuse,
    steps,
)

WEB = {"name": "web", "cgroup": "apps", "proxy_cgroup": "proxy", "to": ["15001"], "inbound": ["80"]}
WANTED = intercept_rules.normal([WEB])
HELD = [intercept_rules.to_layout(WANTED[0], lambda _path: (1, 1), lambda _user: 0, lambda: 7)]
ATTACHED = {
    **{name: ["apps"] for name in ("getpeername4", "getpeername6")},
    **{name: ["apps", "proxy"] for name in ("connect4", "connect6", "claims")},
    "getsockopt": ["proxy"],
    "inbound": ["/proc/self/ns/net"],
}
THERE = Observed(HELD, WANTED, ATTACHED)
EARLIER = [Unlisted(7, End("127.0.0.1", 15001), 100), Unlisted(7, End("127.0.0.1", 15001), 101)]


@pytest.mark.parametrize(
    ("observed", "unlisted", "verbs"),
    [
        (THERE, [], []),
        (THERE, EARLIER, ["enlist"]),
        # Writing rules tells the programs of listeners too.
        (THERE._replace(rules=[], recorded=[]), EARLIER, ["settings"]),
        # Another boot, or another network namespace.
        (THERE._replace(rules=[HELD[0]._replace(netns=8)]), [], ["settings"]),
        (THERE._replace(rules=[HELD[0]._replace(inbound=())]), [], ["settings"]),
    ],
)
def test_rules_with_connections_from_outside(observed, unlisted, verbs):
    assert [step.verb for step in steps(WANTED, HELD, observed, unlisted)] == verbs


def test_listeners_are_shown_once_each_address():
    (step,) = steps(WANTED, HELD, THERE, EARLIER)
    assert (step.after, step.kind) == (["127.0.0.1 port 15001"], "listener_unknown")


def test_without_the_program_on_the_namespace_it_is_refused():
    refuse(WANTED, THERE)
    with pytest.raises(SockredirError, match="rule web: inbound is not attached to this network namespace"):
        refuse(WANTED, THERE._replace(attached={**ATTACHED, "inbound": []}))
