# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was learned, as it is shown."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.layout import MAX_PORTS
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import groups, report, speeds

HEX = "0123456789abcdef" * 4


def entry(port, given, unit=None, local=True):
    detail = {"program": "p", "unit": unit, "local": local, "cgroup_id": 0}
    return {"port": port, "verdict": given, "passing": False, "details": [detail]}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/sys/fs/cgroup/system.slice/redis-server.service", "redis-server.service"),
        ("/sys/fs/cgroup/user.slice/user-0.slice/session-1.scope", "session-1.scope"),
        ("/sys/fs/cgroup/user.slice/user@0.service/app.slice/a.service", "a.service"),
        (f"/sys/fs/cgroup/system.slice/docker-{HEX}.scope", "container 0123456789ab"),
        (f"/sys/fs/cgroup/kubepods.slice/cri-containerd-{HEX}.scope/init", "container 0123456789ab"),
        (f"/sys/fs/cgroup/docker/{HEX}", "container 0123456789ab"),
        ("/sys/fs/cgroup/sockredir.slice", None),
        ("", None),
    ],
)
def test_units_and_containers(path, unit):
    assert groups.unit(path) == unit


def test_variables_choose_and_exclude():
    ports = [entry(90, "leave"), entry(80, "accelerate"), entry(70, "accelerate"), entry(60, "no-gain")]
    assert report.variables(ports) == {"sockredir_ports": [70, 80], "sockredir_exclude_ports": [90]}


def test_with_nothing_to_accelerate_they_do_not_mean_every_port():
    wanted = report.variables([entry(90, "leave")])
    assert wanted == {"sockredir_ports": [], "sockredir_exclude_ports": [90], "sockredir_mode": "observe"}


def test_ports_that_do_not_last_and_too_many_are_left_out():
    found = made([entry(port, "leave") for port in (82, 81, 80)])
    assert [each["passing"] for each in found["ports"]] == [False, True, False]
    assert found["variables"]["sockredir_exclude_ports"] == [80, 82]
    many = [entry(port, "accelerate") for port in range(1000, 0, -1)]
    assert report.variables(many)["sockredir_ports"] == list(range(1001 - MAX_PORTS, 1001))


def test_services_at_both_ends_of_what_gains():
    ports = [
        entry(80, "accelerate", "b.service"),
        entry(81, "accelerate", "a.service"),
        entry(82, "accelerate", "container 0123456789ab"),
        entry(83, "accelerate", "far.service", local=False),
        entry(84, "leave", "c.service"),
    ]
    assert report.variables(ports)["sockredir_services"] == ["a.service", "b.service"]


def test_yaml_is_what_was_meant():
    yaml = pytest.importorskip("yaml")
    wanted = {
        "sockredir_ports": [70, 80],
        "sockredir_exclude_ports": [],
        "sockredir_mode": "observe",
        "sockredir_services": ["app@1.service", "dev-sda\\x2d1.service"],
    }
    assert yaml.safe_load("\n".join(report.yaml(wanted))) == wanted


def made(ports, **more):
    about = {"seconds": 1.0, "watched": 1.0, "cgroup": None, "lost": 0, "unseen": []}
    about["speeds"] = speeds.as_json(speeds.ESTIMATE)
    return report.make(ports, {7: "/sys/fs/cgroup/a.service"}, {81}, {**about, **more})


def test_programs_get_the_unit_that_they_run_in():
    detail = {"program": "p", "cgroup_id": 7, "local": True}
    found = made([{"port": 80, "verdict": "accelerate", "details": [detail]}])
    assert found["ports"][0]["details"][0] == {
        "program": "p",
        "local": True,
        "cgroup": "/sys/fs/cgroup/a.service",
        "unit": "a.service",
    }
    assert found["variables"]["sockredir_services"] == ["a.service"]


SHOWN = {"port": 80, "verdict": "accelerate", "gain": 1.3, "connections": 5, "bytes": 7, "programs": ["a", "b"]}
SHOWN = {**SHOWN, "why": "because", "details": []}


def table(found):
    return report.table(found, lambda count: f"{count} B")


def test_table():
    lines = table(made([dict(SHOWN)]))
    assert lines[0].split() == ["port", "verdict", "gain", "connections", "bytes", "programs", "why"]
    assert lines[1].split() == ["80", "accelerate", "1.30x", "5", "7", "B", "a,", "b", "because"]
    assert lines[2:] == ["gain: an estimate, measured on another machine"]
    assert table(made([])) == ["no TCP connection was seen in 1 s"]


def test_the_table_says_where_gains_come_from_and_what_was_not_seen():
    failed = speeds.as_json(speeds.ESTIMATE._replace(problem="no clang"))
    here = speeds.as_json(speeds.ESTIMATE._replace(source=speeds.MEASURED))
    assert table(made([dict(SHOWN)], speeds=failed))[2:] == [
        "gain: an estimate, measured on another machine, because of this: no clang"
    ]
    lines = table(made([dict(SHOWN)], speeds=here, lost=3, watched=0.62, unseen=["fionread"]))
    assert lines[2:] == [
        "gain: from what was measured on this host just now",
        "messages were looked at for 62 % of the time: there were too many to look at all of them",
        "not seen on this kernel: fionread (limits.md)",
        "3 connections were not counted: there were too many at once",
    ]
