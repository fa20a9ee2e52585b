# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel that cannot use ``receive``: everything else is there, and its absence is not drift."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import restore
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import needs
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool import status
from support.connection import connection
from support.host import wait_until_detached


@pytest.fixture
def kernel(monkeypatch):
    """What the trial answers, to be changed; and how often it was asked."""

    class Kernel:
        answer = False
        asked = 0

        def one_queue(self):
            self.asked += 1
            return self.answer

    made = Kernel()
    monkeypatch.setitem(needs.TRIALS, "one_queue", made.one_queue)
    return made


def on_map(managed, hook):
    with libbpf.get(str(managed.sandbox.pin_dir / "peers")) as peers:
        return [each.program_id for each in attachments.attached(hook, peers, libbpf.map_info(peers).id, [])[0]]


def entry(managed):
    found = manifest.current(str(managed.sandbox.state_dir))
    (receive,) = [each for each in found["attachments"] if each["program"].endswith("/receive")]
    return found["committed"], receive["needs"], receive["met"]


def reboot(managed):
    for path in managed.sandbox.pin_dir.iterdir():
        path.unlink()
    managed.sandbox.pin_dir.rmdir()
    wait_until_detached(managed.sandbox.cgroup)
    manifest.amend(str(managed.sandbox.state_dir), lambda document: document.update(boot_id="an earlier boot"))


@pytest.mark.parametrize("answer", [False, None])
def test_it_is_not_attached_and_all_else_is(managed, kernel, answer):
    kernel.answer = answer
    foretold = managed.enable_here(check=True)
    done = managed.enable_here()
    assert [[step.verb for step in plan] for plan in foretold] == [[step.verb for step in plan] for plan in done]
    assert on_map(managed, hooks.SK_SKB) == []
    assert on_map(managed, hooks.SK_MSG) == [managed.id("verdict")]
    assert entry(managed) == (True, "one_queue", False)
    assert managed.drift_here() == []
    for check in (True, False):
        assert not any(managed.enable_here(check=check))
    said = status.lines(status.report(str(managed.sandbox.state_dir)))
    assert said[-1] == "as its manifest says"
    assert any(line.startswith("not attached: ") and "/receive to " in line for line in said)
    with connection(managed.sandbox.cgroup) as pair:
        pair.send("client", 5000)
        assert pair.receive("server", 5000)
        assert pair.redirected("client")
    managed.disable_here()
    assert managed.listing() == []


def test_an_upgrade_withholds_the_new_program_too(managed, kernel):
    managed.enable_here("v1")
    managed.enable_here("v2")
    assert on_map(managed, hooks.SK_SKB) == []
    assert on_map(managed, hooks.SK_MSG) == [managed.id("verdict")]
    assert managed.drift_here() == []


def test_a_kernel_that_gained_it_gets_it_at_boot_or_with_the_next_run(managed, kernel):
    managed.enable_here()
    reboot(managed)
    restore.restore(str(managed.sandbox.state_dir))
    assert on_map(managed, hooks.SK_SKB) == []
    assert entry(managed) == (True, "one_queue", False)
    assert managed.drift_here() == []
    kernel.answer = True
    assert [each["kind"] for each in managed.drift_here()] == ["receive_lost"]
    managed.enable_here()
    assert on_map(managed, hooks.SK_SKB) == [managed.id("receive")]
    assert managed.drift_here() == []
    reboot(managed)
    restore.restore(str(managed.sandbox.state_dir))
    assert on_map(managed, hooks.SK_SKB) == [managed.id("receive")]
    assert entry(managed) == (True, "one_queue", True)


def test_what_was_right_is_not_tried_again_in_this_boot(managed, kernel):
    kernel.answer = True
    managed.enable_here()
    asked = kernel.asked
    kernel.answer = None
    assert managed.drift_here() == []
    assert not any(managed.enable_here())
    assert kernel.asked == asked
    reboot(managed)
    kernel.answer = False
    restore.restore(str(managed.sandbox.state_dir))
    assert on_map(managed, hooks.SK_SKB) == []
    assert entry(managed) == (True, "one_queue", False)


def test_the_real_trial_is_what_decides(managed):
    """On this kernel, by the modules as the role runs them."""
    managed.enable()
    assert on_map(managed, hooks.SK_SKB) == [managed.id("receive")]
    assert entry(managed) == (True, "one_queue", True)
