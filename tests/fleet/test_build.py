# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiled once: the role brings objects to hosts that have no compiler, from the controller and from a file."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.collection import ROOT
from support.connection import connection
from support.module import run_module

#: What only the modules of one host see: neither clang nor BCC.
NO_COMPILER = (
    "for clang in /usr/local/bin/clang* /usr/bin/clang* /usr/lib/llvm-*/bin/clang*; do"
    ' [ ! -f "$clang" ] || mount --bind /dev/null "$(readlink -f "$clang")"; done;'
    " for bcc in /usr/lib/python3*/*-packages/bcc; do"
    ' [ ! -d "$bcc" ] || mount -t tmpfs tmpfs "${bcc%/bcc}"; done'
)
BUILDS = {"h001": "controller", "h002": "prebuilt"}
PROGRAMS = ("sockredir", "intercept")


@pytest.fixture(scope="module")
def fleet(fleet_of):
    fleet = fleet_of(len(BUILDS))
    built = {}
    for program in PROGRAMS:
        built[program] = fleet.base / f"{program}.bpf.o"
        source = ROOT / "bpf" / f"{program}.bpf.c"
        made = run_module("sockmap_object", {"src": str(source), "dest": str(built[program])})
        assert not made["failed"], made
    extra = {
        name: {
            "ansible_python_interpreter": fleet.interpreter(name, NO_COMPILER),
            "sockredir_build": build,
            "sockredir_object": str(built["sockredir"]),
            "sockredir_intercept_object": str(built["intercept"]),
            "sockredir_build_dir": str(fleet.base / "cache"),
            "sockredir_intercepts": [
                {"name": "web", "cgroup": str(fleet.cgroup_of(name)), "proxy_user": "65534", "to": [1]}
            ],
        }
        for name, build in BUILDS.items()
    }
    fleet.write_inventory(extra)
    return fleet


def enable(fleet, *options):
    done = fleet.play("enable_sockredir.yml", *options)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def recap(output):
    """``{host: changed}`` of the last lines."""
    lines = output[output.index("PLAY RECAP") :].splitlines()[1:]
    return {line.split()[0]: int(line.split("changed=")[1].split()[0]) for line in lines if "changed=" in line}


def shipped(fleet, name, program="sockredir"):
    return fleet.state_dir(name) / "src" / f"{program}.bpf.o"


def test_the_hosts_have_no_compiler(fleet):
    """Else the rest would prove nothing."""
    done = fleet.play("audit_sockredir.yml")
    assert done.returncode == 0, done.stdout[-4000:]
    report = json.loads((fleet.base / "sockredir-audit.json").read_text(encoding="utf-8"))
    for host in report["hosts"]:
        assert host["status"] == "not_enabled"
        assert [each["found"] for each in host["missing"] if each["name"] == "compiler"] == ["neither clang nor bcc"]


def test_it_is_brought_with_its_checksum(fleet):
    assert recap(enable(fleet)).keys() == set(BUILDS)
    for name in BUILDS:
        digests = {each: hashlib.sha256(shipped(fleet, name, each).read_bytes()).hexdigest() for each in PROGRAMS}
        document = manifest.current(str(fleet.state_dir(name)))
        assert document["committed"]
        for each in PROGRAMS:
            assert document["programs"][each]["compiler"] == "object"
            assert document["programs"][each]["object_sha256"] == digests[each]
        assert document["wanted"]["sources"] == digests["sockredir"]
        assert [rule["name"] for rule in document["intercepts"]] == ["web"]


@pytest.mark.parametrize("name", BUILDS)
def test_it_redirects(fleet, name):
    with connection(fleet.cgroup_of(name)) as pair:
        pair.send("client", 100_000)
        assert pair.receive("server", 100_000)
        assert pair.redirected("client")


def test_again_nothing_changes(fleet):
    assert recap(enable(fleet)) == dict.fromkeys(BUILDS, 0)


def test_check_mode_of_a_converged_host_is_calm(fleet):
    assert recap(enable(fleet, "--check")) == dict.fromkeys(BUILDS, 0)


def test_a_damaged_object_is_brought_anew(fleet):
    right = {path: path.read_bytes() for name in BUILDS for path in (shipped(fleet, name, each) for each in PROGRAMS)}
    for path, data in right.items():
        path.write_bytes(data[:-1])
    assert all(recap(enable(fleet)).values())
    assert right == {path: path.read_bytes() for path in right}


def test_an_object_that_is_not_there_is_said_before_any_change(fleet):
    before = {name: manifest.current(str(fleet.state_dir(name))) for name in BUILDS}
    missing = str(fleet.base / "none.o")
    for variable in ("sockredir_object", "sockredir_intercept_object"):
        done = fleet.play("enable_sockredir.yml", "--limit", "h002", "-e", f"{variable}={missing}")
        assert done.returncode == 2
        assert f"cannot read {missing} on the controller: No such file or directory" in done.stdout
    done = fleet.play("enable_sockredir.yml", "--limit", "h002", "-e", "sockredir_intercept_object=")
    assert "set sockredir_intercept_object to an object compiled from intercept.bpf.c" in done.stdout
    assert before == {name: manifest.current(str(fleet.state_dir(name))) for name in BUILDS}


def test_disable_leaves_nothing(fleet):
    done = fleet.play("disable_sockredir.yml")
    assert done.returncode == 0, done.stdout[-4000:]
    for name in BUILDS:
        assert not fleet.state_dir(name).exists()
        assert not fleet.pin_dir(name).exists()
    shutil.rmtree(fleet.base / "cache")
