# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os
import re
import shutil
import subprocess

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import files, metrics_timer, systemd


@pytest.mark.parametrize(
    ("cgroup", "name"),
    [
        ("sockredir.slice", "sockredir.slice"),
        ("/sockredir.slice/", "sockredir.slice"),
        ("a.slice/a-b.slice", "a-b.slice"),
        ("a.slice/a-b.slice/a-b-c.slice", "a-b-c.slice"),
        ("a-b.slice", None),
        ("b.slice/a-b.slice", None),
        ("x/sockredir.slice", None),
        ("system.slice/redis.service", None),
        (".slice", None),
        ("plain", None),
        ("/", None),
        ("", None),
    ],
)
def test_which_slice_has_a_cgroup(cgroup, name):
    assert systemd.slice_of(cgroup) == name


@pytest.mark.parametrize(
    ("name", "full"),
    [("redis", "redis.service"), ("redis.service", "redis.service"), ("pg@15-main", "pg@15-main.service")],
)
def test_service_names(name, full):
    assert systemd.service_name(name) == full


@pytest.mark.parametrize("name", ["", "../x", "a b", "x/y.service", "redis.socket/"])
def test_no_service_names(name):
    with pytest.raises(SockredirError, match="services"):
        systemd.service_name(name)


def test_the_unit_is_enabled_by_its_symlink_and_runs_before_the_network(tmp_path):
    made = systemd.unit_files(str(tmp_path), "/opt/sbin/sockredirctl", "/srv/state", "my.slice")
    unit = made[str(tmp_path / "sockredir.service")].text
    assert "ExecStart=/opt/sbin/sockredirctl restore\n" in unit
    assert "RequiresMountsFor=/opt/sbin /srv/state\n" in unit
    assert "Before=network-pre.target " in unit
    assert "Wants=network-pre.target my.slice\n" in unit
    link = made[str(tmp_path / "multi-user.target.wants" / "sockredir.service")]
    assert link == files.symlink(str(tmp_path / "sockredir.service"))


#: Options that give a unit mounts of its own (systemd.exec(5), PrivateMounts=).
OWN_MOUNTS = (
    r"Private(Mounts|Tmp|Devices|Network|Users)|Protect(System|Home|Proc|ControlGroups|Kernel\w+)|ProcSubset"
    r"|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec|Bind|BindReadOnly)Paths|TemporaryFileSystem|Root\w+|MountFlags"
    r"|(State|Runtime|Cache|Logs|Configuration)Directory|DynamicUser"
)


def test_what_restore_mounts_is_the_hosts(tmp_path):
    unit = systemd.unit_files(str(tmp_path), "/s", "/d", None)[str(tmp_path / "sockredir.service")].text
    options = [line.partition("=")[0] for line in unit.splitlines() if not line.startswith("#")]
    assert [option for option in options if re.fullmatch(OWN_MOUNTS, option)] == []
    assert "CapabilityBoundingSet" in options


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_knows_every_option_of_the_units(tmp_path):
    made = systemd.unit_files(str(tmp_path), "/bin/true", "/d", None)
    made.update(metrics_timer.unit_files(str(tmp_path), "/bin/true", "/d/sockredir.prom"))
    units = [path for path, made_file in made.items() if not made_file.link]
    for path in units:
        files.replace(path, made[path])
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if "sockredir" in line] == []
    assert done.returncode == 0, done.stderr


def test_drop_ins_are_found_and_only_ours(tmp_path):
    files.replace(systemd.drop_in_path(str(tmp_path), "b.service"), systemd.drop_in("my.slice"))
    files.replace(systemd.drop_in_path(str(tmp_path), "a.service"), systemd.drop_in("my.slice"))
    files.replace(str(tmp_path / "c.service.d" / "other.conf"), files.File(""))
    assert systemd.drop_ins(str(tmp_path)) == ["a.service", "b.service"]
    assert systemd.drop_ins(str(tmp_path / "missing")) == []


OURS, OTHER = "my.slice", "system.slice"


@pytest.mark.parametrize(
    ("cgroup", "slice_name", "listed", "released", "waits"),
    [
        ("/system.slice/a.service", OURS, True, False, True),
        ("/my.slice/a.service", OURS, True, False, False),
        ("/my.slice", OURS, True, False, False),
        ("/my.slice2/a.service", OURS, True, False, True),
        ("", OURS, True, False, False),
        ("/my.slice/a.service", OURS, False, True, True),
        ("/my.slice/a.service", OTHER, False, False, True),
        ("/my.slice/a.service", OURS, False, False, False),
        ("/system.slice/a.service", OTHER, False, True, False),
        ("", OTHER, False, True, False),
    ],
)
def test_who_waits_for_a_restart(cgroup, slice_name, listed, released, waits):
    found = [systemd.Service("a.service", True, cgroup, slice_name)]
    names = ["a.service"]
    assert systemd.waiting(found, names * listed, names * released, OURS) == names * waits


def test_services_that_run_in_a_slice(tmp_path):
    for name in ("b.service", "a@1.service", "user.slice", "x.scope"):
        (tmp_path / name).mkdir()
    assert systemd.running_in(str(tmp_path)) == ["a@1.service", "b.service"]
    assert systemd.running_in(str(tmp_path / "missing")) == []


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A systemctl that answers with a file and keeps its arguments."""
    command = tmp_path / "bin" / "systemctl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncat {tmp_path}/answer\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_services_as_systemd_shows_them(systemctl):
    (systemctl / "answer").write_text(
        "Slice=system.slice\nControlGroup=/system.slice/a.service\nId=a.service\nLoadState=loaded\n"
        "TriggeredBy=b.timer a.socket\n\n"
        "ControlGroup=\nId=b.service\nLoadState=not-found\n"
    )
    assert systemd.services(["a.service", "b.service"]) == [
        systemd.Service("a.service", True, "/system.slice/a.service", "system.slice", ("a.socket",)),
        systemd.Service("b.service", False, "", ""),
    ]
    assert (systemctl / "calls").read_text().startswith("--no-ask-password --no-pager show ")


def test_systemd_is_not_asked_of_no_service(systemctl):
    assert systemd.services([]) == []
    assert not (systemctl / "calls").exists()


def test_an_answer_with_holes_is_refused(systemctl):
    (systemctl / "answer").write_text("Id=a.service\nLoadState=loaded\n")
    with pytest.raises(SockredirError, match="1 of 2"):
        systemd.services(["a.service", "b.service"])


@pytest.mark.parametrize(
    ("unit", "state", "where", "occupied"),
    [
        ("a.socket", "active", "my.slice", True),
        ("a.socket", "inactive", "my.slice", False),
        ("a.service", "active", "my-web.slice", True),
        ("a.socket", "active", "myself.slice", False),
        ("a.socket", "active", "system.slice", False),
        ("my-web.slice", "active", "my.slice", False),
    ],
)
def test_a_slice_is_occupied_by_what_is_active_in_it_or_below(systemctl, unit, state, where, occupied):
    (systemctl / "answer").write_text(
        f"Id=my.slice\nActiveState=active\nSlice=-.slice\n\nId={unit}\nActiveState={state}\nSlice={where}\n"
    )
    assert systemd.occupied("my.slice") == occupied


def test_systemd_is_not_asked_of_no_unit(systemctl):
    assert systemd.active_in([]) == {}
    assert not (systemctl / "calls").exists()
