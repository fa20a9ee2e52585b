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
    def damage(managed):
        os.unlink(managed.sandbox.pin_dir / name)

    return damage


def program_pin_replaced(managed):
    path = str(managed.sandbox.pin_dir / "verdict")
    with libbpf.load_program(libbpf.PROG_TYPE_SK_MSG, "other", _RETURN_ONE, libbpf.ATTACH_SK_MSG_VERDICT) as other:
        os.unlink(path)
        libbpf.pin(other, path)


def map_pin_replaced(managed):
    path = str(managed.sandbox.pin_dir / "settings")
    with libbpf.create_map(libbpf.MAP_TYPE_ARRAY, "settings", 4, layout.SETTINGS_SIZE, 1) as other:
        os.unlink(path)
        libbpf.pin(other, path)


def verdict_lost(managed):
    """What happens when the last pin of the map goes: the kernel takes its verdict off."""
    attachments.detach_legacy(str(managed.sandbox.pin_dir / "peers"), managed.id("verdict"))


def receive_lost(managed):
    attachments.detach_legacy(str(managed.sandbox.pin_dir / "peers"), managed.id("receive"))


def receive_overwritten(managed):
    with libbpf.load_program(
        libbpf.PROG_TYPE_SK_SKB, "other", _RETURN_ONE, libbpf.ATTACH_SK_SKB_STREAM_VERDICT
    ) as other, libbpf.get(str(managed.sandbox.pin_dir / "peers")) as peers:
        libbpf.attach(other, peers, libbpf.ATTACH_SK_SKB_STREAM_VERDICT)


def verdict_overwritten(managed):
    with libbpf.load_program(
        libbpf.PROG_TYPE_SK_MSG, "other", _RETURN_ONE, libbpf.ATTACH_SK_MSG_VERDICT
    ) as other, libbpf.get(str(managed.sandbox.pin_dir / "peers")) as peers:
        libbpf.attach(other, peers, libbpf.ATTACH_SK_MSG_VERDICT)


def link_updated(managed):
    with libbpf.load_program(
        libbpf.PROG_TYPE_SOCK_OPS, "other", _RETURN_ONE, libbpf.ATTACH_CGROUP_SOCK_OPS
    ) as other, libbpf.get(link_pin(managed)) as link:
        libbpf.update_link(link, other)


def link_pin_gone(managed):
    os.unlink(link_pin(managed))
    wait_until_detached(managed.sandbox.cgroup)


def cgroup_recreated(managed):
    remove_cgroup(managed.sandbox.cgroup)
    managed.sandbox.cgroup.mkdir()


def cgroup_gone(managed):
    remove_cgroup(managed.sandbox.cgroup)


def attached_twice(managed):
    attachments.attach_legacy(str(managed.sandbox.cgroup), managed.id("sockops"))


def settings_changed(managed):
    found = live.read_settings(str(managed.sandbox.pin_dir)).settings
    live.write_settings(
        str(managed.sandbox.pin_dir), str(managed.sandbox.state_dir), found._replace(mode=settings_value.Mode.DRAIN)
    )


def settings_half_written(managed):
    with live.open_map(str(managed.sandbox.pin_dir), "settings") as settings:
        raw = settings.lookup(bytes(4))
        settings.update(bytes(4), settings_value.change_steps(raw, settings_value.decode_settings(raw))[0])


def settings_nonsense(managed):
    with live.open_map(str(managed.sandbox.pin_dir), "settings") as settings:
        settings.update(bytes(4), b"\xff" * layout.SETTINGS_SIZE)


def object_of(managed):
    (path,) = (managed.sandbox.state_dir / "objects").iterdir()
    return path


def object_changed(managed):
    path = object_of(managed)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def object_gone(managed):
    object_of(managed).unlink()


def edit_manifest(managed, change):
    path = managed.sandbox.state_dir / "current"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def manifest_changed(managed):
    edit_manifest(managed, lambda document: document["settings"].update(mode="observe"))


def manifest_torn(managed):
    path = managed.sandbox.state_dir / "current"
    path.write_text(path.read_text()[:100])


def manifest_without_file(managed):
    os.unlink(os.path.realpath(managed.sandbox.state_dir / "current"))


def library_changed(managed):
    with open(managed.prefix / "lib" / "sockredir" / "sockredir" / "errors.py", "a", encoding="utf-8") as stream:
        stream.write("# changed\n")


def library_has_more(managed):
    (managed.prefix / "lib" / "sockredir" / "sockredir" / "more.py").write_text("")


def tool_changed(managed):
    path = managed.prefix / "sbin" / "sockredirctl"
    path.write_text(path.read_text() + "# changed\n")


def rebooted(managed):
    """bpffs is memory: as the host is after a reboot, but for the boot's id."""
    for path in managed.sandbox.pin_dir.iterdir():
        path.unlink()
    managed.sandbox.pin_dir.rmdir()
    wait_until_detached(managed.sandbox.cgroup)
    manifest.amend(str(managed.sandbox.state_dir), lambda document: document.update(boot_id="an earlier boot"))


def bpffs_over(managed):
    subprocess.run(["mount", "-t", "bpf", "bpf", str(managed.sandbox.bpffs)], check=True)


def link_pin(managed):
    (path,) = managed.sandbox.pin_dir.glob("link_sockops_*")
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
def test_drift_is_named_and_repaired(managed, damage, kinds):
    managed.enable_here()
    assert managed.drift_here() == []
    try:
        damage(managed)
        found = managed.drift_here()
        assert {each["kind"] for each in found} >= kinds, found

        checked = managed.enable_here(check=True)
        assert any(checked)
        assert managed.drift_here() == found, "check mode changes nothing"

        repaired = managed.enable_here()
        assert any(repaired)
        assert managed.drift_here() == []
        assert not any(managed.enable_here())
        with connection(managed.sandbox.cgroup) as pair:
            pair.send("client", 5000)
            assert pair.receive("server", 5000)
            assert pair.redirected("client")
    finally:
        if damage is bpffs_over:
            managed.disable_here()
            subprocess.run(["umount", str(managed.sandbox.bpffs)], check=True)


def test_the_tool_and_the_modules_say_the_same(managed):
    managed.enable()
    assert managed.ctl("status").returncode == 0
    program_pin_replaced(managed)
    settings_changed(managed)
    object_changed(managed)
    status = managed.ctl("status")
    assert status.returncode == 1
    for kind in ("pin_replaced", "settings_changed", "object_changed"):
        assert f"{kind}: " in status.stdout
    checked = managed.enable(check=True)
    assert checked[0]["changed"]
    assert checked[-1]["changed"]
    assert managed.ctl("status").stdout == status.stdout
    repaired = managed.enable()
    assert "verdict" in repaired[0]["diff"]["after"]
    assert "enforce" in repaired[-1]["diff"]["after"]
    clean = managed.ctl("status")
    assert clean.returncode == 0, clean.stdout


def test_the_unit_disabled_is_named_and_enabled_again(managed, monkeypatch):
    """In this process: no systemd runs here, so it is made to look as if one did."""
    managed.enable()
    calls = []
    monkeypatch.setattr(systemd, "booted", lambda: True)
    monkeypatch.setattr(systemd, "systemctl", lambda words: calls.append(list(words)) or "")
    options = managed.here(persist=True)

    def drift():
        return {(each["kind"], os.path.basename(each["subject"])) for each in managed.drift_here()}

    states.present(options, False)
    unit_dir = str(managed.unit_dir)
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


def test_foreign_programs_are_shown_and_left_alone(managed):
    managed.enable()
    kind = libbpf.ATTACH_CGROUP_SOCK_OPS
    with libbpf.load_program(libbpf.PROG_TYPE_SOCK_OPS, "foreign", _RETURN_ONE, kind) as foreign:
        number = libbpf.program_info(foreign).id
        with attachments.opened("cgroup", str(managed.sandbox.cgroup)) as target:
            libbpf.attach(foreign, target, kind, libbpf.F_ALLOW_MULTI)
        status = managed.status()
        assert status["drift"] == []
        assert [entry["program_id"] for entry in status["foreign"]] == [number]
        assert f"foreign: program id {number}" in managed.ctl("status").stdout
        assert managed.enable("v2")[0]["changed"]
        assert managed.ctl("rollback").returncode == 0
        os.unlink(link_pin(managed))
        assert managed.enable("v1")[-2]["changed"]
        gone_now = managed.disable()
        assert not gone_now["failed"]
        with attachments.opened("cgroup", str(managed.sandbox.cgroup)) as target:
            assert libbpf.query(target, kind).program_ids == [number]
            libbpf.detach(foreign, target, kind)


def test_the_state_directory_gone(managed):
    managed.enable()
    ids = {name: managed.id(name) for name in ("sockops", "verdict", "receive", "peers")}
    shutil.rmtree(managed.sandbox.state_dir)
    status = managed.ctl("status")
    assert status.returncode == 4
    assert "not enabled on this host" in status.stdout
    for verb in (["restore"], ["rollback"], ["mode", "drain"], ["counters"], ["exec", "true"]):
        done = managed.ctl(*verb)
        assert done.returncode == 4, verb
        assert done.stderr.startswith("sockredirctl: not enabled on this host: there is no manifest in")
    assert not managed.sandbox.state_dir.exists()
    managed.enable()
    assert ids == {name: managed.id(name) for name in ids}
    assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout


@pytest.mark.parametrize("method", ["auto", "legacy"])
def test_disable_without_a_state_directory(managed, method):
    managed.enable(method=method)
    shutil.rmtree(managed.sandbox.state_dir)
    assert managed.disable(check=True)["changed"]
    done = managed.disable()
    assert done["changed"]
    assert managed.listing() == []
    with attachments.opened("cgroup", str(managed.sandbox.cgroup)) as target:
        assert libbpf.query(target, libbpf.ATTACH_CGROUP_SOCK_OPS).program_ids == []
