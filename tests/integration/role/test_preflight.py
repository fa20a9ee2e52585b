# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that lacks many things at once: all of them in one message, and nothing changed."""

from __future__ import annotations

import json
import os
import re
import shlex

import pytest

# In a mount namespace of its own, so that only the playbook sees it: no compiler, no libbpf, no cgroup2.
_HIDE = """
for file in /usr/bin/clang /usr/bin/clang-[0-9]* /usr/lib/*/libbpf.so.1*; do
    [ ! -f "$file" ] || mount --bind /dev/null "$file" || exit
done
[ ! -d /usr/lib/python3/dist-packages/bcc ] || mount -t tmpfs none /usr/lib/python3/dist-packages/bcc || exit
{more}
exec "$@"
"""
_NO_CGROUP2 = "umount --lazy {mount}"


def hiding(more: str = "") -> tuple:
    return ("unshare", "--mount", "sh", "-c", _HIDE.replace("{more}", more), "sh")


@pytest.fixture
def no_cgroup2(site):
    return hiding(_NO_CGROUP2.replace("{mount}", shlex.quote(str(site.cgroup.parent))))


@pytest.mark.parametrize("options", [(), ("--check",)], ids=["for real", "in check mode"])
def test_all_that_is_missing_is_named_at_once(site, no_cgroup2, options):
    played = site.enable(*options, variables={"sockredir_install_packages": False}, prefix=no_cgroup2)
    assert played.code != 0
    assert len(played.failed) == 1
    said = played.tasks[-1]["result"]["msg"]
    for word in ("cgroup2", "libbpf.so.1", "clang", "nothing was changed"):
        assert word in said
    assert "\n" not in said.strip()
    assert not played.changed
    assert site.traces() == []


#: What os-release says on a distribution, and what the role would install there, with clang and with bcc.
DISTRIBUTIONS = {
    "ubuntu": ("ID=ubuntu\nID_LIKE=debian", "libbpf1, clang, libbpf-dev, linux-libc-dev"),
    "fedora_bcc": ("ID=fedora", f"libbpf, python3-bcc, kernel-devel-{os.uname().release}"),
    "rocky": ('ID="rocky"\nID_LIKE="rhel centos fedora"', "libbpf, clang, libbpf-devel, kernel-headers"),
    "leap": ('ID="opensuse-leap"\nID_LIKE="suse opensuse"', "libbpf1, clang, libbpf-devel, linux-glibc-devel"),
}


def seeming(directory, name, text):
    """A Python for a host on which no compiler and no libbpf is, and which seems to be of another distribution."""
    (directory / f"{name}.release").write_text(f"{text}\n")
    path = directory / f"{name}.python"
    command = shlex.join(hiding(f"mount --bind {directory}/{name}.release /etc/os-release || exit"))
    path.write_text(f'#!/bin/sh\nexec {command} /usr/bin/python3 "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_bare_hosts_are_told_which_packages_would_come(site, tmp_path):
    hosts = {
        name: {
            "ansible_connection": "local",
            "ansible_python_interpreter": seeming(tmp_path, name, text),
            "sockredir_compiler": "bcc" if name.endswith("_bcc") else "auto",
        }
        for name, (text, _packages) in DISTRIBUTIONS.items()
    }
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    played = site.enable("--check", "--tags", "sockredir_packages", "-i", str(inventory)).ok()
    told = dict(re.findall(r'\[(\w+)\] => \{?\s+"?msg"?: "?would install ([^"\n]+)', played.output))
    assert told == {name: packages for name, (_text, packages) in DISTRIBUTIONS.items()}
    assert site.traces() == []


def test_bcc_comes_with_the_headers_of_this_kernel(site):
    bcc = {"sockredir_compiler": "bcc"}
    played = site.enable("--check", variables=bcc, prefix=hiding()).ok()
    assert f"python3-bpfcc, linux-headers-{os.uname().release}" in played.output
    assert "clang" not in played.output
    refused = site.enable(variables={**bcc, "sockredir_install_packages": False}, prefix=hiding())
    assert refused.code != 0
    said = refused.tasks[-1]["result"]["msg"]
    assert "sockredir_compiler (found: " in said
    assert f"needed: bcc; cure: install python3-bpfcc linux-headers-{os.uname().release}, or" in said
    assert site.traces() == []


def test_without_root_it_says_so(site):
    if not os.path.exists("/usr/sbin/runuser"):
        pytest.skip("no runuser here")
    played = site.enable(prefix=("setpriv", "--bounding-set=-sys_admin,-bpf", "--inh-caps=-all", "--"))
    assert played.code != 0
    assert "root" in played.tasks[-1]["result"]["msg"]
    assert site.traces() == []


def test_the_preflight_alone(site):
    played = site.enable("--tags", "sockredir_preflight").ok()
    modules = [task["result"].get("preflight") for task in played.tasks if "preflight" in task["result"]]
    assert len(modules) == 1
    assert modules[0]["missing"] == []
    assert not played.changed
    assert site.traces() == []
