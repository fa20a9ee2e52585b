# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role is told to do on a host: a row for each thing that a report can say."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils import distribution
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.preflight import Wanted, judge

PINS, CGROUP = "/sys/fs/bpf/sockredir", "/cg/sockredir.slice"


def attached(name, **target):
    return {"program": f"{PINS}/{name}", "map": None, "cgroup": None, **target}


ATTACHMENTS = [
    attached("receive", map=f"{PINS}/peers"),
    attached("sockops", cgroup=CGROUP),
    attached("verdict", map=f"{PINS}/peers"),
]


def prerequisite(name, ok, scope):
    return {"name": name, "ok": ok, "found": "it", "needed": "more", "cure": "" if ok else "get it", "scope": scope}


REPORT = {
    "host": {
        "family": "debian",
        "kernel": "6.1.0-28-amd64",
        "cgroup2": "/cg",
        "bpffs": [{"mount_point": "/sys/fs/bpf", "reachable": True}],
    },
    "prerequisites": [
        prerequisite("root", True, "load"),
        prerequisite("libbpf", True, "load"),
        prerequisite("compiler", True, "build"),
        prerequisite("systemd", False, "persist"),
    ],
    "compilers": ["clang"],
    "advice": [
        {"name": "ktls", "found": "2", "risk": "a crash", "cure": "update", "scope": "any"},
        {"name": "splice", "found": "x", "risk": "a hang", "cure": "a slice", "scope": "whole_host"},
    ],
    "enabled": True,
    "drift": [],
    "manifest": {"attachments": ATTACHMENTS},
    "pin_dir": PINS,
    "pin_directory": {"uid": 0, "gid": 0, "mode": "0700"},
}
WANTED = Wanted("sockredir.slice", install_packages=True)


def report(unmet=(), host=None, **more):
    made = copy.deepcopy(REPORT)
    for each in made["prerequisites"]:
        if each["name"] in unmet:
            each.update(ok=False, cure="get it")
    made["host"].update(host or {})
    return {**made, **more}


def test_a_host_that_is_as_wanted():
    assert judge(WANTED, report()) == {
        "missing": [],
        "packages": [],
        "warnings": ["a crash; cure: update"],
        "standing": True,
        "pins_ready": True,
        "mount_bpffs": False,
        "hooks": {"attach": [], "detach": []},
    }


CLANG = ["clang", "libbpf-dev", "linux-libc-dev"]
BCC = ["python3-bpfcc", "linux-headers-6.1.0-28-amd64"]


@pytest.mark.parametrize(
    ("wanted", "found", "missing", "packages"),
    [
        (WANTED, report(["libbpf"]), [], ["libbpf1"]),
        (WANTED, report(["libbpf", "compiler"], compilers=[]), [], ["libbpf1", *CLANG]),
        (WANTED, report(["libbpf", "root"]), ["root"], ["libbpf1"]),
        (WANTED, report(["root"]), ["root"], []),
        (WANTED._replace(install_packages=False), report(["libbpf"]), ["libbpf"], []),
        (WANTED, report(["libbpf"], {"family": ""}), ["libbpf"], []),
        (WANTED._replace(compiler="none"), report(["compiler"], compilers=[]), [], []),
        (WANTED._replace(compiler="clang"), report(), [], []),
        (WANTED._replace(compiler="bcc"), report(), [], BCC),
        (WANTED._replace(compiler="bcc"), report(["compiler"], compilers=[]), [], BCC),
        (WANTED._replace(compiler="bcc", install_packages=False), report(), ["sockredir_compiler"], []),
    ],
)
def test_what_is_missing_and_what_to_install(wanted, found, missing, packages):
    decided = judge(wanted, found)
    assert [each["name"] for each in decided["missing"]] == missing
    assert decided["packages"] == packages


def test_a_compiler_that_was_asked_for_by_name():
    (missing,) = judge(Wanted("x", "bcc"), report())["missing"]
    assert missing["needed"] == "bcc"
    assert missing["cure"] == f"install {' '.join(BCC)}, or sockredir_compiler: auto"


@pytest.mark.parametrize("cgroup", ["/", "/cg", " / "])
def test_the_whole_host_has_more_warnings(cgroup):
    warnings = judge(WANTED._replace(cgroup=cgroup), report())["warnings"]
    assert warnings == ["a crash; cure: update", "a hang; cure: a slice"]


ROOT = [*ATTACHMENTS[:1], attached("sockops", cgroup="/cg"), *ATTACHMENTS[2:]]


@pytest.mark.parametrize(
    ("cgroup", "found", "standing"),
    [
        ("/cg/sockredir.slice", report(), True),
        ("/", report(manifest={"attachments": ROOT}), True),
        ("sockredir.slice", report(drift=[{"kind": "unfinished"}]), True),
        ("sockredir.slice", report(drift=[{"kind": "pin_missing"}]), False),
        ("sockredir.slice", report(drift=None), False),
        ("sockredir.slice", report(enabled=False, manifest=None), False),
        ("other.slice", report(), False),
        ("sockredir.slice", report(manifest={"attachments": ATTACHMENTS[1:]}), False),
        ("sockredir.slice", report(manifest={"attachments": [*ATTACHMENTS, ATTACHMENTS[0]]}), False),
    ],
)
def test_whether_the_attachments_need_a_look(cgroup, found, standing):
    decided = judge(WANTED._replace(cgroup=cgroup), found)
    assert decided["standing"] is standing
    assert decided["pins_ready"] is standing


@pytest.mark.parametrize(
    ("found", "ready", "mount"),
    [
        (report(pin_directory=None), False, False),
        (report(pin_directory={"uid": 0, "gid": 0, "mode": "0755"}), False, False),
        (report(host={"bpffs": []}), True, True),
        (report(host={"bpffs": [{"mount_point": "/sys/fs/bpf", "reachable": False}]}), True, True),
        (report(host={"bpffs": []}, pin_dir="/run/pins"), False, False),
    ],
)
def test_the_directory_of_the_pins(found, ready, mount):
    decided = judge(WANTED, found)
    assert (decided["pins_ready"], decided["mount_bpffs"]) == (ready, mount)


@pytest.mark.parametrize("family", ["debian", "redhat", "suse"])
def test_every_family_has_names_for_everything(family):
    for what in distribution.PACKAGES:
        names = distribution.packages(what, family, "6.1")
        assert names
        assert all("{" not in name for name in names)


def test_the_execution_environment_asks_for_the_same_packages():
    """Its list is a file of its own, which other tools read."""
    root = Path(__file__).resolve().parents[3]
    lines = [line.split("[") for line in (root / "meta" / "ee-bindep.txt").read_text().splitlines() if "[" in line]
    wanted = {platform: {name.strip() for name, where in lines if platform in where} for platform in ("dpkg", "rpm")}
    assert set(distribution.packages("clang", "debian", "")) <= wanted["dpkg"]
    assert set(distribution.packages("clang", "redhat", "")) <= wanted["rpm"]


HOOKED = [attached("claims", cgroup="/cg/proxy"), attached("connect4", cgroup="/cg/apps")]
CLAIMS, CONNECT = ["claims", "proxy"], ["connect4", "/cg/apps"]
INBOUND = ["inbound", "/proc/self/ns/net"]
ON_NETNS = [attached("inbound", netns="/proc/self/ns/net")]


@pytest.mark.parametrize(
    ("hooks", "found", "attach", "detach"),
    [
        ([CLAIMS, CONNECT], report(), [CLAIMS, CONNECT], []),
        ([CLAIMS, CONNECT], report(manifest=None, enabled=False), [CLAIMS, CONNECT], []),
        ([CLAIMS, CONNECT], report(manifest={"attachments": [*ATTACHMENTS, *HOOKED]}), [], []),
        ([CONNECT, CLAIMS], report(manifest={"attachments": [*ATTACHMENTS, *HOOKED[1:]]}), [CLAIMS], []),
        (
            [CLAIMS, CONNECT],
            report(manifest={"attachments": [*ATTACHMENTS, *HOOKED]}, drift=[{"kind": "attachment_missing"}]),
            [CLAIMS, CONNECT],
            [],
        ),
        (
            [["claims", "other"]],
            report(manifest={"attachments": [*ATTACHMENTS, *HOOKED]}),
            [["claims", "other"]],
            [["claims", "/cg/proxy"], ["connect4", "/cg/apps"]],
        ),
        ([], report(manifest={"attachments": [*ATTACHMENTS, *HOOKED[:1]]}), [], [["claims", "/cg/proxy"]]),
        ([CLAIMS, INBOUND], report(manifest={"attachments": [*ATTACHMENTS, *HOOKED[:1]]}), [INBOUND], []),
        ([INBOUND], report(manifest={"attachments": [*ATTACHMENTS, *ON_NETNS]}), [], []),
        ([], report(manifest={"attachments": [*ATTACHMENTS, *ON_NETNS]}), [], [INBOUND]),
    ],
)
def test_which_hooks_of_interception_come_and_go(hooks, found, attach, detach):
    assert judge(WANTED._replace(hooks=hooks), found)["hooks"] == {"attach": attach, "detach": detach}
