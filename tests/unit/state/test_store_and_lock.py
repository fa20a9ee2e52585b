# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects under their own sha256, whole files, and the host's lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import threading

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils import atomic_file
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock, store


@pytest.fixture
def state(tmp_path):
    return str(tmp_path / "state")


def test_an_object_comes_back_as_it_was(state):
    digest = store.put(state, b"object")
    assert store.get(state, digest) == b"object"
    assert os.stat(store.path(state, digest)).st_mode & 0o777 == 0o600
    assert store.stored(state) == [digest]


def test_a_damaged_object_is_refused_and_put_again(state):
    digest = store.put(state, b"object")
    with open(store.path(state, digest), "ab") as stream:
        stream.write(b"!")
    with pytest.raises(
        SockredirError, match=r"is damaged: its content has the sha256 [0-9a-f]{64}; run the role again"
    ):
        store.get(state, digest)
    store.put(state, b"object")
    assert store.get(state, digest) == b"object"


def test_a_missing_object_is_named(state):
    with pytest.raises(SockredirError, match=r"cannot read the object .*No such file"):
        store.get(state, store.sha256(b"never stored"))


def test_what_is_no_sha256_is_no_path(state):
    with pytest.raises(ValueError, match="not a sha256"):
        store.path(state, "../../etc/passwd")


def test_keep_only(state):
    kept, gone = store.put(state, b"kept"), store.put(state, b"gone")
    assert store.keep_only(state, [kept]) == [gone]
    assert store.stored(state) == [kept]
    assert store.keep_only(os.path.join(state, "nowhere"), []) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = str(tmp_path / "file")
    atomic_file.write(path, b"old")

    def full(_number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SockredirError, match=r"cannot write .*file: No space left on device"):
            atomic_file.write(path, b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    (tmp_path / ".file.new").write_bytes(b"half a fi")
    (tmp_path / ".link.new").write_bytes(b"")
    atomic_file.write(str(tmp_path / "file"), b"whole")
    atomic_file.link(str(tmp_path / "link"), "file")
    assert (tmp_path / "link").read_bytes() == b"whole"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_the_mode_is_as_asked_whatever_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        atomic_file.write(str(tmp_path / "file"), b"", 0o644)
    finally:
        os.umask(old)
    assert os.stat(tmp_path / "file").st_mode & 0o777 == 0o644


def test_a_directory_may_go_while_it_is_made(tmp_path, monkeypatch):
    path = tmp_path / "state" / "objects"
    path.mkdir(parents=True)
    make, rounds = os.mkdir, []

    def contended(directory, mode=0o777):
        """The other process removes it between the refusal to make it and the question whether it is there."""
        try:
            make(directory, mode)
        except FileExistsError:
            if not rounds:
                rounds.append(directory)
                shutil.rmtree(tmp_path / "state")
            raise

    monkeypatch.setattr(os, "mkdir", contended)
    atomic_file.make_directory(str(path))
    assert rounds == [str(path)]
    assert path.is_dir()


def test_what_is_no_directory_is_not_taken_for_one(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SockredirError, match=r"cannot write .*file: File exists"):
        atomic_file.make_directory(str(tmp_path / "file"))
    with pytest.raises(SockredirError, match=r"cannot write .*below: Not a directory"):
        atomic_file.make_directory(str(tmp_path / "file" / "below"))


def test_removing_what_is_not_there(tmp_path):
    atomic_file.remove(str(tmp_path / "nothing"))


def test_one_holder_at_a_time(state):
    order = []

    def second():
        with lock.hold(state, 30):
            order.append("second")

    with lock.hold(state, 0):
        thread = threading.Thread(target=second)
        thread.start()
        with pytest.raises(SockredirError, match=rf"another run \(process {os.getpid()}\) has held .*/lock"), lock.hold(
            state, 0
        ):
            pass
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_a_dead_holder_holds_nothing(state):
    program = textwrap.dedent(
        """
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from support.collection import map_collection
        map_collection()
        from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock
        with lock.hold(sys.argv[2], 0):
            os.kill(os.getpid(), 9)
        """
    )
    tests = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    ended = subprocess.run([sys.executable, "-c", program, tests, state], check=False)
    assert ended.returncode == -9
    with lock.hold(state, 0):
        pass


def test_the_state_directory_may_go_before_the_lock_is_opened(state, monkeypatch):
    made = []

    def make(path):
        os.makedirs(path, exist_ok=True)
        made.append(path)
        if len(made) == 1:
            os.rmdir(path)

    monkeypatch.setattr(lock.atomic_file, "make_directory", make)
    with lock.hold(state, 0):
        assert len(made) == 2


def test_the_state_directory_may_go_while_another_waits(state):
    entered = threading.Event()

    def second():
        with lock.hold(state, 30):
            assert os.path.exists(os.path.join(state, lock.NAME))
            entered.set()

    with lock.hold(state, 0):
        thread = threading.Thread(target=second)
        thread.start()
        # Renamed first: the waiting run makes the directory again while this one is being emptied.
        os.rename(state, f"{state}.gone")
        shutil.rmtree(f"{state}.gone")
    thread.join(30)
    assert entered.is_set()


def test_a_state_directory_that_is_only_for_the_lock_goes_with_it(tmp_path):
    state = tmp_path / "state"
    with lock.hold(str(state), 0):
        assert os.listdir(state) == [lock.NAME]
    assert not state.exists()
    with lock.hold(str(state), 0):
        (state / "current").write_bytes(b"")
    assert sorted(os.listdir(state)) == ["current", lock.NAME]


def test_a_state_directory_that_was_there_stays(tmp_path):
    with lock.hold(str(tmp_path), 0):
        pass
    assert os.listdir(tmp_path) == [lock.NAME]


def test_the_lock_of_whoever_came_next_stays(tmp_path):
    """The first created the directory; it was taken away under it, and the next created its own in its place."""
    state = tmp_path / "state"
    with contextlib.ExitStack() as later:
        with lock.hold(str(state), 0):
            os.rename(state, tmp_path / "gone")
            later.enter_context(lock.hold(str(state), 0))
        assert os.listdir(state) == [lock.NAME]
    assert not state.exists()
