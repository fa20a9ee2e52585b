# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import os

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import files


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "a" / "b" / "file")


def test_a_file_comes_with_its_directories_and_goes_with_them(place, tmp_path):
    files.replace(place, files.File("one\n", 0o755))
    assert files.read(place) == files.File("one\n", 0o755)
    files.remove(place, str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_directories_in_use_stay(place, tmp_path):
    files.replace(place, files.File("one\n"))
    (tmp_path / "a" / "other").write_text("")
    files.remove(place, str(tmp_path))
    assert os.listdir(tmp_path / "a") == ["other"]


def test_nothing_above_keep_is_removed(tmp_path):
    keep = tmp_path / "keep"
    keep.mkdir()
    files.replace(str(keep / "file"), files.File(""))
    files.remove(str(keep / "file"), str(keep))
    assert keep.is_dir()


@pytest.mark.parametrize("before", [None, files.File("old\n", 0o600), files.symlink("elsewhere")])
@pytest.mark.parametrize("after", [None, files.File("new\n"), files.symlink("there")])
def test_a_change_can_be_undone(place, tmp_path, before, after):
    if before:
        files.replace(place, before)
    undo = files.change(place, after, str(tmp_path))
    assert files.read(place) == after
    undo()
    assert files.read(place) == before


def test_undecodable_text_survives(place):
    os.makedirs(os.path.dirname(place))
    with open(place, "wb") as stream:
        stream.write(b"\xff\r\n")
    found = files.read(place)
    files.replace(place, found)
    with open(place, "rb") as stream:
        assert stream.read() == b"\xff\r\n"


def test_a_directory_in_the_way_is_refused(place):
    os.makedirs(place)
    with pytest.raises(SockredirError, match="is not a regular file"):
        files.read(place)


def test_the_diff_of_a_long_file_is_its_digest():
    assert files.File("x" * 5000).show() == f"mode 0644\nsha256:{files.digest('x' * 5000)}\n"
    assert files.symlink("/a").show() == "-> /a"
