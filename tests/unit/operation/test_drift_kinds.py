# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each step of the whole host's plan says of its drift."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import Step
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.files import File, digest, symlink
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import hooks
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import drift_kinds
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import apply as attachment_apply
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import apply as program_apply


def kinds(part, verbs, same_boot=True):
    named = drift_kinds.name_drift(part, [Step(verb, verb, "old", "new") for verb in verbs], same_boot)
    return [each["kind"] for each in drift_kinds.reported(named)]


@pytest.mark.parametrize(
    ("part", "verbs", "expected"),
    [
        ("program", [], []),
        ("program", ["load", "pin", "pin", "identify"], ["pin_missing", "pin_missing"]),
        ("program", ["load", "replace", "identify"], ["pin_replaced"]),
        ("program", ["pin", "identify"], ["pin_missing"]),
        ("program", ["make_directory", "load", "pin", "identify"], ["pin_missing", "pin_missing"]),
        ("program", ["unpin"], ["leftover"]),
        ("program", ["store"], ["object_changed"]),
        # All as it should be, but not what was recorded.
        ("program", ["identify"], ["pin_replaced"]),
        ("cgroup_sock_ops", ["attach_link", "record"], ["attachment_missing"]),
        ("cgroup_sock_ops", ["attach_legacy", "record"], ["attachment_missing"]),
        ("cgroup_sock_ops", ["create_cgroup", "attach_link", "record"], ["attachment_missing", "attachment_missing"]),
        ("cgroup_sock_ops", ["replace_link", "record"], ["program_replaced"]),
        ("cgroup_sock_ops", ["replace_legacy", "record"], ["program_replaced"]),
        ("cgroup_sock_ops", ["detach_legacy", "record"], ["attached_twice"]),
        ("cgroup_sock_ops", ["detach_link", "record"], ["attached_twice"]),
        ("cgroup_sock_ops", ["record"], ["pin_replaced"]),
        ("sk_msg_verdict", ["attach_legacy", "record"], ["verdict_lost"]),
        ("sk_msg_verdict", ["attach_link", "record"], ["verdict_lost"]),
        ("sk_skb_stream_verdict", ["attach_legacy", "record"], ["receive_lost"]),
        ("sk_skb_stream_verdict", ["attach_link", "record"], ["receive_lost"]),
        ("sk_skb_stream_verdict", ["replace_legacy", "record"], ["program_replaced"]),
        ("sk_msg_verdict", ["replace_legacy", "record"], ["program_replaced"]),
        ("sk_msg_verdict", ["replace_link", "record"], ["program_replaced"]),
        ("settings", ["settings"], ["settings_changed"]),
        ("bpffs", ["mount"], ["pin_missing"]),
    ],
)
def test_what_a_step_says(part, verbs, expected):
    assert kinds(part, verbs) == expected


@pytest.mark.parametrize(
    ("part", "verbs", "expected"),
    [
        ("program", ["load", "pin", "identify"], ["lost_at_reboot"]),
        ("program", ["replace"], ["pin_replaced"]),
        ("program", ["identify"], []),
        ("cgroup_sock_ops", ["create_cgroup", "attach_link", "record"], ["lost_at_reboot", "lost_at_reboot"]),
        ("cgroup_sock_ops", ["record"], []),
        ("cgroup_sock_ops", ["replace_link", "record"], ["program_replaced"]),
        ("sk_msg_verdict", ["attach_legacy", "record"], ["lost_at_reboot"]),
        ("sk_skb_stream_verdict", ["attach_legacy", "record"], ["lost_at_reboot"]),
        ("settings", ["settings"], ["settings_changed"]),
    ],
)
def test_after_a_reboot_what_is_missing_was_lost_with_it(part, verbs, expected):
    assert kinds(part, verbs, same_boot=False) == expected


def test_every_verb_of_the_parts_has_a_kind():
    verbs = set(attachment_apply.handlers(Wanted("/b/p", "cgroup", "/cg"), "/s")) - {"remove_cgroup"}
    of_cgroups = {"create_cgroup", "start_slice"}
    for hook in hooks.HOOKS:
        assert set(drift_kinds._KINDS[hook.name]) == verbs - (of_cgroups if hook.kind != "cgroup" else set())
    assert set(program_apply.Handlers("/s").handlers()) - {"forget", "remove_directory"} == set(
        drift_kinds._KINDS["program"]
    )


UNIT = {"path": "/u/s.service", "link": "/u/w/s.service"}
TOOL, LINK = File("tool\n", 0o755), symlink("/u/s.service")
RECORDED = {"/sbin/tool": digest("tool\n"), "/u/w/s.service": "-> /u/s.service"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"/sbin/tool": TOOL, "/u/w/s.service": LINK}, []),
        ({"/sbin/tool": None, "/u/w/s.service": LINK}, [("file_changed", "/sbin/tool", None)]),
        ({"/u/w/s.service": LINK}, [("file_changed", "/sbin/tool", None)]),
        ({"/sbin/tool": File("x"), "/u/w/s.service": LINK}, [("file_changed", "/sbin/tool", digest("x"))]),
        ({"/sbin/tool": TOOL, "/u/w/s.service": None}, [("unit_disabled", "/u/w/s.service", None)]),
        (
            {"/sbin/tool": TOOL, "/u/w/s.service": symlink("/dev/null")},
            [("unit_disabled", "/u/w/s.service", "-> /dev/null")],
        ),
        (
            {"/sbin/tool": TOOL, "/u/w/s.service": LINK, "/lib/more.py": File("")},
            [("file_changed", "/lib/more.py", digest(""))],
        ),
    ],
)
def test_files(found, expected):
    drift = drift_kinds.reported(drift_kinds.file_drift(RECORDED, found, UNIT))
    assert [(each["kind"], each["subject"], each["before"]) for each in drift] == expected
