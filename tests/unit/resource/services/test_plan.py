# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd is told after the files of a change: a row for each thing that can be found on a host."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.systemd import Service
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.services import plan as services
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.services.plan import Observed, Wanted

SLICE = "my.slice"
OUTSIDE = Service("a.service", True, "/system.slice/a.service", "system.slice")
INSIDE = Service("a.service", True, "/my.slice/a.service", SLICE)
STOPPED = Service("a.service", True, "", "system.slice")
UNKNOWN = Service("a.service", False, "", "")
WANTED = Wanted(SLICE, "/u", ("a.service",), restart=True)
NOBODY = WANTED._replace(names=())
DROP_IN = ["/u/a.service.d/50-sockredir.conf"]


def observed(*found, **more):
    return Observed(True, SLICE, "/my.slice", found)._replace(**more)


@pytest.mark.parametrize(
    ("wanted", "there", "changed", "verbs"),
    [
        (WANTED, observed(OUTSIDE), DROP_IN, ["reload", "start_slice", "restart"]),
        (WANTED, observed(OUTSIDE), [], ["restart"]),
        (WANTED, observed(INSIDE), [], []),
        (WANTED, observed(INSIDE), ["/p/sbin/sockredirctl"], []),
        (WANTED, observed(STOPPED), DROP_IN, ["reload", "start_slice"]),
        (WANTED._replace(restart=False), observed(OUTSIDE), DROP_IN, ["reload", "start_slice"]),
        (NOBODY, observed(INSIDE, drop_ins=("a.service",)), DROP_IN, ["reload", "start_slice", "restart"]),
        (NOBODY._replace(present=False), observed(INSIDE, drop_ins=("a.service",)), DROP_IN, ["reload", "restart"]),
        (NOBODY, observed(INSIDE), [], []),
        (NOBODY, observed(slice=None), ["/u/sockredir.service"], ["reload"]),
        (NOBODY, Observed(), ["/u/sockredir.service"], []),
    ],
)
def test_what_is_done(wanted, there, changed, verbs):
    assert [step.verb for step in services.plan(wanted, there, changed)] == verbs


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (Observed(), "systemd does not run on this host"),
        (observed(OUTSIDE, slice=None), "the cgroup my.slice does not belong to a slice"),
        (observed(UNKNOWN), "systemd does not know a.service"),
    ],
)
def test_what_is_refused(there, words):
    with pytest.raises(SockredirError, match=f"^services: {words}") as caught:
        services.plan(WANTED, there, DROP_IN)
    assert caught.value.cure


def test_a_service_that_a_task_before_would_have_installed():
    assert services.plan(WANTED._replace(check=True), observed(UNKNOWN), []) == []


def test_who_waits():
    assert services.waiting(WANTED, observed(OUTSIDE)) == ["a.service"]
    assert services.waiting(WANTED, observed(INSIDE)) == []
    assert services.waiting(WANTED, observed(OUTSIDE, slice=None)) == []


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (observed(INSIDE), []),
        (observed(INSIDE, sockets={"a.socket": SLICE}), []),
        (observed(INSIDE, sockets={"a.socket": "my-web.slice"}), []),
        (observed(INSIDE, sockets={"a.socket": "system.slice", "b.socket": SLICE}), ["a.socket"]),
        (Observed(), []),
    ],
)
def test_socket_units_whose_listeners_are_outside_the_slice(there, named):
    assert services.listening_elsewhere(there) == named
