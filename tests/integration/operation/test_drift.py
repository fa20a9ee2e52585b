# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each way a host can drift, made by hand: named by status, repaired by enable, clean afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout, live, settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import files, systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import states
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.connection import connection
from support.host import remove_cgroup, wait_until_detached

_RETURN_ONE = bytes.fromhex("b7000000010000009500000000000000")


def pin_gone(name):
    def damage(whole):
        os.unlink(whole.corner.pin_dir / name)

    return damage


def program_pin_replaced(whole):
    path = str(whole.corner.pin_dir / "verdict")
    with libbpf.load_program(libbpf.PROG_TYPE_SK_MSG, "other", _RETURN_ONE, libbpf.ATTACH_SK_MSG_VERDICT) as other:
        os.unlink(path)
        libbpf.pin(other, path)


def map_pin_replaced(whole):
    path = str(whole.corner.pin_dir / "settings")
    with libbpf.create_map(libbpf.MAP_TYPE_ARRAY, "settings", 4, layout.SETTINGS_SIZE, 1) as other:
        os.unlink(path)
        libbpf.pin(other, path)


def verdict_lost(whole):
    """What happens when the last pin of the map goes: the kernel takes its verdict off."""
    attachments.detach_legacy(str(whole.corner.pin_dir / "peers"), whole.id("verdict"))


def receive_lost(whole):
    attachments.detach_legacy(str(whole.corner.pin_dir / "peers"), whole.id("receive"))


def receive_overwritten(whole):
    with libbpf.load_program(
        libbpf.PROG_TYPE_SK_SKB, "other", _RETURN_ONE, libbpf.ATTACH_SK_SKB_STREAM_VERDICT
    ) as other, libbpf.get(str(whole.corner.pin_dir / "peers")) as peers:
        libbpf.attach(other, peers, libbpf.ATTACH_SK_SKB_STREAM_VERDICT)


def verdict_overwritten(whole):
    with libbpf.load_program(
        libbpf.PROG_TYPE_SK_MSG, "other", _RETURN_ONE, libbpf.ATTACH_SK_MSG_VERDICT
    ) as other, libbpf.get(str(whole.corner.pin_dir / "peers")) as peers:
        libbpf.attach(other, peers, libbpf.ATTACH_SK_MSG_VERDICT)


def link_updated(whole):
    with libbpf.load_program(
        libbpf.PROG_TYPE_SOCK_OPS, "other", _RETURN_ONE, libbpf.ATTACH_CGROUP_SOCK_OPS
    ) as other, libbpf.get(link_pin(whole)) as link:
        libbpf.update_link(link, other)


def link_pin_gone(whole):
    os.unlink(link_pin(whole))
    wait_until_detached(whole.corner.cgroup)


def cgroup_recreated(whole):
    remove_cgroup(whole.corner.cgroup)
    whole.corner.cgroup.mkdir()


def cgroup_gone(whole):
    remove_cgroup(whole.corner.cgroup)


def attached_twice(whole):
    attachments.attach_legacy(str(whole.corner.cgroup), whole.id("sockops"))


def settings_changed(whole):
    found = live.read_settings(str(whole.corner.pin_dir)).settings
    live.write_settings(
        str(whole.corner.pin_dir), str(whole.corner.state_dir), found._replace(mode=settings_value.Mode.DRAIN)
    )


def settings_half_written(whole):
    with live.open_map(str(whole.corner.pin_dir), "settings") as settings:
        raw = settings.lookup(bytes(4))
        settings.update(bytes(4), settings_value.change_steps(raw, settings_value.decode_settings(raw))[0])


def settings_nonsense(whole):
    with live.open_map(str(whole.corner.pin_dir), "settings") as settings:
        settings.update(bytes(4), b"\xff" * layout.SETTINGS_SIZE)


def object_of(whole):
    (path,) = (whole.corner.state_dir / "objects").iterdir()
    return path


def object_changed(whole):
    path = object_of(whole)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def object_gone(whole):
    object_of(whole).unlink()


def edit_manifest(whole, change):
    path = whole.corner.state_dir / "current"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def manifest_changed(whole):
    edit_manifest(whole, lambda document: document["settings"].update(mode="observe"))


def manifest_torn(whole):
    path = whole.corner.state_dir / "current"
    path.write_text(path.read_text()[:100])


def manifest_without_file(whole):
    os.unlink(os.path.realpath(whole.corner.state_dir / "current"))


def library_changed(whole):
    with open(whole.prefix / "lib" / "sockredir" / "sockredir" / "errors.py", "a", encoding="utf-8") as stream:
        stream.write("# changed\n")


def library_has_more(whole):
    (whole.prefix / "lib" / "sockredir" / "sockredir" / "more.py").write_text("")


def tool_changed(whole):
    path = whole.prefix / "sbin" / "sockredirctl"
    path.write_text(path.read_text() + "# changed\n")


def rebooted(whole):
    """bpffs is memory: as the host is after a reboot, but for the boot's id."""
    for path in whole.corner.pin_dir.iterdir():
        path.unlink()
    whole.corner.pin_dir.rmdir()
    wait_until_detached(whole.corner.cgroup)
    manifest.amend(str(whole.corner.state_dir), lambda document: document.update(boot_id="an earlier boot"))


def bpffs_over(whole):
    subprocess.run(["mount", "-t", "bpf", "bpf", str(whole.corner.bpffs)], check=True)


def link_pin(whole):
    (path,) = whole.corner.pin_dir.glob("link_sockops_*")
    return str(path)


DRIFTS = [
    (pin_gone("sockops"), {"pin_missing"}),
    (pin_gone("verdict"), {"pin_missing"}),
    (pin_gone("counters"), {"pin_missing"}),
    (pin_gone("receive"), {"pin_missing"}),
    (pin_gone("peers"), {"pin_missing", "verdict_lost", "receive_lost"}),
    (program_pin_replaced, {"pin_replaced"}),
    (map_pin_replaced, {"pin_replaced", "settings_changed"}),
    (verdict_lost, {"verdict_lost"}),
    (receive_lost, {"receive_lost"}),
    (verdict_overwritten, {"program_replaced"}),
    (receive_overwritten, {"program_replaced"}),
    (link_updated, {"program_replaced"}),
    (link_pin_gone, {"attachment_missing"}),
    (cgroup_recreated, {"attachment_missing"}),
    (cgroup_gone, {"attachment_missing"}),
    (attached_twice, {"attached_twice"}),
    (settings_changed, {"settings_changed"}),
    (settings_half_written, {"settings_changed"}),
    (settings_nonsense, {"settings_changed"}),
    (object_changed, {"object_changed"}),
    (object_gone, {"object_changed"}),
    (manifest_changed, {"manifest_changed", "settings_changed"}),
    (manifest_torn, {"manifest_changed"}),
    (manifest_without_file, {"manifest_changed"}),
    (library_changed, {"file_changed"}),
    (library_has_more, {"file_changed"}),
    (tool_changed, {"file_changed"}),
    (rebooted, {"lost_at_reboot"}),
    (bpffs_over, {"pin_missing"}),
]


def name(case):
    return getattr(case[0], "__qualname__", "").replace(".<locals>.damage", "") + "-" + "-".join(sorted(case[1]))


@pytest.mark.parametrize(
    ("damage", "kinds"), DRIFTS, ids=[f"{number}-{name(case)}" for number, case in enumerate(DRIFTS)]
)
def test_drift_is_named_and_repaired(whole, damage, kinds):
    whole.enable_here()
    assert whole.drift_here() == []
    try:
        damage(whole)
        found = whole.drift_here()
        assert {each["kind"] for each in found} >= kinds, found

        pretended = whole.enable_here(check=True)
        assert any(pretended)
        assert whole.drift_here() == found, "check mode changes nothing"

        repaired = whole.enable_here()
        assert any(repaired)
        assert whole.drift_here() == []
        assert not any(whole.enable_here())
        with connection(whole.corner.cgroup) as pair:
            pair.send("client", 5000)
            assert pair.receive("server", 5000)
            assert pair.redirected("client")
    finally:
        if damage is bpffs_over:
            whole.disable_here()
            subprocess.run(["umount", str(whole.corner.bpffs)], check=True)


def test_the_tool_and_the_modules_say_the_same(whole):
    whole.enable()
    assert whole.ctl("status").returncode == 0
    program_pin_replaced(whole)
    settings_changed(whole)
    object_changed(whole)
    status = whole.ctl("status")
    assert status.returncode == 1
    for kind in ("pin_replaced", "settings_changed", "object_changed"):
        assert f"{kind}: " in status.stdout
    pretended = whole.enable(check=True)
    assert pretended[0]["changed"]
    assert pretended[-1]["changed"]
    assert whole.ctl("status").stdout == status.stdout
    repaired = whole.enable()
    assert "verdict" in repaired[0]["diff"]["after"]
    assert "enforce" in repaired[-1]["diff"]["after"]
    clean = whole.ctl("status")
    assert clean.returncode == 0, clean.stdout


def test_the_unit_disabled_is_named_and_enabled_again(whole, monkeypatch):
    """In this process: no systemd runs here, so it is made to look as if one did."""
    whole.enable()
    calls = []
    monkeypatch.setattr(systemd, "booted", lambda: True)
    monkeypatch.setattr(systemd, "systemctl", lambda words: calls.append(list(words)) or "")
    options = whole.here(persist=True)

    def drift():
        return {(each["kind"], os.path.basename(each["subject"])) for each in whole.drift_here()}

    states.present(options, False)
    unit_dir = str(whole.unit_dir)
    assert drift() == set()
    os.unlink(systemd.wants_link(unit_dir))
    assert drift() == {("unit_disabled", "sockredir.service")}
    outcome = states.present(options, False)
    assert [step.kind or step.verb for step in outcome.steps] == ["unit_disabled", "reload"]
    assert drift() == set()
    files.replace(os.path.join(unit_dir, "sockredir.service"), files.symlink("/dev/null"))  # masked
    assert drift() == {("unit_disabled", "sockredir.service")}
    states.present(options, False)
    assert drift() == set()
    assert not states.present(options, False).steps


def test_foreign_programs_are_shown_and_left_alone(whole):
    whole.enable()
    kind = libbpf.ATTACH_CGROUP_SOCK_OPS
    with libbpf.load_program(libbpf.PROG_TYPE_SOCK_OPS, "foreign", _RETURN_ONE, kind) as foreign:
        number = libbpf.program_info(foreign).id
        with attachments.opened("cgroup", str(whole.corner.cgroup)) as target:
            libbpf.attach(foreign, target, kind, libbpf.F_ALLOW_MULTI)
        status = whole.status()
        assert status["drift"] == []
        assert [entry["program_id"] for entry in status["foreign"]] == [number]
        assert f"foreign: program id {number}" in whole.ctl("status").stdout
        assert whole.enable("v2")[0]["changed"]
        assert whole.ctl("rollback").returncode == 0
        os.unlink(link_pin(whole))
        assert whole.enable("v1")[-2]["changed"]
        gone_now = whole.disable()
        assert not gone_now["failed"]
        with attachments.opened("cgroup", str(whole.corner.cgroup)) as target:
            assert libbpf.query(target, kind).program_ids == [number]
            libbpf.detach(foreign, target, kind)


def test_the_state_directory_gone(whole):
    whole.enable()
    ids = {name: whole.id(name) for name in ("sockops", "verdict", "receive", "peers")}
    shutil.rmtree(whole.corner.state_dir)
    status = whole.ctl("status")
    assert status.returncode == 4
    assert "not enabled on this host" in status.stdout
    for verb in (["restore"], ["rollback"], ["mode", "drain"], ["counters"], ["exec", "true"]):
        done = whole.ctl(*verb)
        assert done.returncode == 4, verb
        assert done.stderr.startswith("sockredirctl: not enabled on this host: there is no manifest in")
    assert not whole.corner.state_dir.exists()
    whole.enable()
    assert ids == {name: whole.id(name) for name in ids}
    assert whole.ctl("status").returncode == 0, whole.ctl("status").stdout


@pytest.mark.parametrize("method", ["auto", "legacy"])
def test_disable_without_a_state_directory(whole, method):
    whole.enable(method=method)
    shutil.rmtree(whole.corner.state_dir)
    assert whole.disable(check=True)["changed"]
    done = whole.disable()
    assert done["changed"]
    assert whole.listing() == []
    with attachments.opened("cgroup", str(whole.corner.cgroup)) as target:
        assert libbpf.query(target, libbpf.ATTACH_CGROUP_SOCK_OPS).program_ids == []
