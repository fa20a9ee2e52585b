# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment: its build context, and each stage of the build that needs no container engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "execution-environment"
BUILDER = Path(sys.executable).parent / "ansible-builder"
GALAXY = Path(sys.executable).parent / "ansible-galaxy"

pytestmark = [
    pytest.mark.skipif(not BUILDER.exists(), reason="ansible-builder is not installed"),
    pytest.mark.skipif(not GALAXY.exists(), reason="ansible-core is not installed"),
]


def run(*command, cwd, collections=None):
    environment = dict(os.environ)
    if collections:
        # Else the checkout, where ansible.cfg names it, counts as installed.
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    words = [str(part) for part in command]
    result = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """The context that the example's own instructions make."""
    folder = tmp_path_factory.mktemp("ee")
    for file in EXAMPLE.iterdir():
        shutil.copy(file, folder)
    run(GALAXY, "collection", "build", ROOT, "--output-path", folder, cwd=folder)
    run(BUILDER, "create", cwd=folder)
    return folder / "context"


@pytest.fixture(scope="module")
def installed(context, tmp_path_factory):
    """The collection, installed as the image's galaxy stage does it."""
    folder = tmp_path_factory.mktemp("collections")
    run(
        GALAXY,
        "collection",
        "install",
        "-r",
        "requirements.yml",
        "--collections-path",
        folder,
        "--offline",
        cwd=context / "_build",
        collections=folder,
    )
    return folder / "ansible_collections" / "ebpf" / "sockredir"


@pytest.fixture(scope="module")
def requirements(context, installed, tmp_path_factory):
    """What the image's builder stage finds that the collection wants."""
    folder = tmp_path_factory.mktemp("found")
    run(
        sys.executable,
        context / "_build" / "scripts" / "introspect.py",
        "introspect",
        installed.parents[2],
        f"--write-bindep={folder / 'bindep.txt'}",
        f"--write-pip={folder / 'requirements.txt'}",
        cwd=folder,
    )
    return folder


def test_the_collection_file_is_the_one_that_is_built():
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    definition = (EXAMPLE / "execution-environment.yml").read_text(encoding="utf-8")
    galaxy = (EXAMPLE / "requirements.yml").read_text(encoding="utf-8")
    assert f"ebpf-sockredir-{version}.tar.gz" in definition
    assert f"ebpf-sockredir-{version}.tar.gz" in galaxy


def test_the_installed_collection_is_whole(installed):
    manifest = json.loads((installed / "MANIFEST.json").read_text(encoding="utf-8"))
    assert manifest["collection_info"]["name"] == "sockredir"
    for needed in ("plugins/plugin_utils/report/page.css", "plugins/plugin_utils/report/page.js", "meta/ee-bindep.txt"):
        assert (installed / needed).is_file()


def test_python_requirements_satisfy_the_query_filter(requirements):
    lines = (requirements / "requirements.txt").read_text(encoding="utf-8").split("\n")
    names = [line.split("#")[0].strip() for line in lines if line.strip()]
    assert names == ["jmespath>=1.0,<2"]
    pinned = (ROOT / "requirements" / "controller.txt").read_text(encoding="utf-8")
    assert "\njmespath==1." in pinned


@pytest.mark.parametrize(
    ("platform", "packages"),
    [
        (["platform:rpm", "platform:fedora"], ["clang", "libbpf-devel", "kernel-headers", "openssh-clients"]),
        (["platform:rpm", "platform:rhel"], ["clang", "libbpf-devel", "kernel-headers", "openssh-clients"]),
        (["platform:dpkg", "platform:debian"], ["clang", "libbpf-dev", "linux-libc-dev", "openssh-client"]),
    ],
)
def test_system_requirements(requirements, platform, packages):
    depends = pytest.importorskip("bindep.depends", reason="bindep is not installed")
    rules = depends.Depends((requirements / "bindep.txt").read_text(encoding="utf-8")).active_rules(platform)
    assert [rule[0] for rule in rules] == packages


@pytest.mark.skipif(not shutil.which("apt-cache"), reason="needs apt")
def test_system_requirements_exist_here(requirements):
    depends = pytest.importorskip("bindep.depends", reason="bindep is not installed")
    wanted = depends.Depends((requirements / "bindep.txt").read_text(encoding="utf-8"))
    for rule in wanted.active_rules(["platform:dpkg", "platform:debian"]):
        assert "Candidate: (none)" not in run("apt-cache", "policy", rule[0], cwd=ROOT)
        assert rule[0] in run("apt-cache", "policy", rule[0], cwd=ROOT)
