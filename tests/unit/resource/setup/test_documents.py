# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manual page and completion are made anew unless the host has those of this library, as the manifest knows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import files, install
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.files import File
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.setup import documents
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.setup.fingerprint import fingerprint
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.snapshot import Snapshot
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest

PACKAGE = {"__init__.py": "", "tool/main.py": "verbs\n"}


@pytest.fixture
def host(tmp_path):
    """A host with all of it, as the manifest says: places, manifest."""
    places = install.Places(str(tmp_path))
    there = {path: File(f"of {Path(path).name}\n") for path in places.documents}
    for path, file in there.items():
        files.replace(path, file)
    there.update({f"{places.package}/{name}": File(text) for name, text in PACKAGE.items()})
    return places, {**manifest.empty(), "files": {path: fingerprint(file) for path, file in there.items()}}


def wanted(host, package=None):
    places, document = host
    snapshot = Snapshot("/nowhere", document)
    return documents.wanted(lambda: {"made": File("")}, places, package or PACKAGE, snapshot)


def test_those_of_this_library_stay(host):
    assert wanted(host) == {path: File(f"of {Path(path).name}\n") for path in host[0].documents}


@pytest.mark.parametrize(
    "package", [{**PACKAGE, "tool/main.py": "other verbs\n"}, {**PACKAGE, "more.py": ""}], ids=["other", "more"]
)
def test_those_of_another_library_do_not(host, package):
    assert wanted(host, package).keys() == {"made"}


@pytest.mark.parametrize("which", range(3))
def test_what_is_not_as_recorded_does_not(host, which):
    path = Path(host[0].documents[which])
    path.write_text("edited\n", encoding="utf-8")
    assert wanted(host).keys() == {"made"}
    path.unlink()
    assert wanted(host).keys() == {"made"}
    path.symlink_to("elsewhere")
    assert wanted(host).keys() == {"made"}


def test_a_mode_that_was_changed_is_not_wanted(host):
    path = host[0].manual
    Path(path).chmod(0o600)
    assert wanted(host)[path].mode == 0o644


def test_nothing_recorded_nothing_there():
    places = install.Places("/nowhere")
    assert wanted((places, None)).keys() == {"made"}
    assert wanted((places, manifest.empty())).keys() == {"made"}
