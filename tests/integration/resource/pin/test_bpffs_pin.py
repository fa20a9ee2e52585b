# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bpffs_pin on the live kernel: each state tested check, real, again, again in check."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, objects
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock
from support.module import run_module


def tree(directory: Path) -> list:
    """Every path below a directory with what it is, who owns it and what is pinned there."""
    found = []
    for path in sorted(directory.rglob("*")):
        if path.name in ("maps.debug", "progs.debug"):  # the kernel's own
            continue
        status = path.lstat()
        number = objects.at(str(path)).id if stat.S_ISREG(status.st_mode) else None
        found.append((str(path), oct(status.st_mode), status.st_uid, status.st_gid, number))
    return found


def mounts(directory: Path) -> list:
    """What is mounted on a directory and below it."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if f"{point}/".startswith(f"{directory}/")]


#: Each test's own, where the lock is.
_places = {}


@pytest.fixture(autouse=True)
def state_dir(tmp_path):
    _places["state_dir"] = str(tmp_path / "state")
    yield tmp_path / "state"
    assert not (tmp_path / "state").exists(), "the lock is all that was in it"


def pin(check: bool = False, **options):
    return run_module("bpffs_pin", {**_places, **options}, check=check)


def four_times(watched: Path, **options):
    """Check changes nothing, real does it, and then nothing is left to do; what real returned."""
    before = (tree(watched), mounts(watched))
    said = pin(check=True, **options)
    assert not said["failed"], said
    assert said["changed"], said
    assert said["diff"]["before"] != said["diff"]["after"]
    assert (tree(watched), mounts(watched)) == before
    done = pin(**options)
    assert not done["failed"], done
    assert done["changed"]
    after = (tree(watched), mounts(watched))
    for check in (False, True):
        again = pin(check=check, **options)
        assert not again["failed"], again
        assert not again["changed"], again["diff"]
    assert (tree(watched), mounts(watched)) == after
    return done


@pytest.fixture
def peers(host):
    """A map, pinned on the host's bpffs; its id."""
    with libbpf.create_map(libbpf.MAP_TYPE_SOCKHASH, "peers", 4, 8, 4) as created:
        libbpf.pin(created, str(host.bpffs / "peers"))
        yield libbpf.map_info(created).id


def access(path: Path) -> tuple:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def test_mounted(tmp_path):
    point = tmp_path / "new" / "bpf"
    try:
        done = four_times(tmp_path, path=str(point), state="mounted", group="1")
        assert done["mount_point"] == str(point)
        assert access(point) == (0o700, 0, 1)
        assert mounts(tmp_path) == [str(point)]
        four_times(tmp_path, path=str(point), state="mounted", mode="0750")
        assert not pin(path=str(point / "below"), state="mounted")["changed"], "it is on a bpffs already"
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_mounted_never_stacks(host):
    before = mounts(host.bpffs)
    for path in (host.bpffs, host.bpffs / ".." / "bpf"):
        assert not pin(path=str(path), state="mounted")["changed"]
    assert mounts(host.bpffs) == before


def test_a_stacked_bpffs_is_told(host):
    subprocess.run(["mount", "-t", "bpf", "bpf", str(host.bpffs)], check=True)
    try:
        done = pin(path=str(host.bpffs), state="mounted")
        assert not done["changed"]
        assert done["notes"] == [f"bpffs is mounted 2 times at {host.bpffs}: pins below the topmost are hidden"]
    finally:
        subprocess.run(["umount", str(host.bpffs)], check=True)


def test_directory(host):
    path = host.bpffs / "outer" / "inner"
    old = os.umask(0o77)
    try:
        four_times(host.bpffs, path=str(path), state="directory", owner="1", mode="0750")
    finally:
        os.umask(old)
    assert access(path) == (0o750, 1, 0)
    assert access(path.parent) == (0o700, 0, 0)
    four_times(host.bpffs, path=str(path), state="directory", owner="root")
    four_times(host.bpffs, path=str(path), state="absent")
    assert path.parent.is_dir()


def test_a_pin_from_a_pin(host, peers):
    path = host.bpffs / "copy"
    done = four_times(host.bpffs, path=str(path), source=str(host.bpffs / "peers"), mode="0640", group="1")
    assert (done["kind"], done["id"]) == ("map", peers)
    assert access(path) == (0o640, 0, 1)
    four_times(host.bpffs, path=str(path), state="absent", kind="map")
    assert (host.bpffs / "peers").exists()


def test_a_pin_from_an_id(host, peers):
    done = four_times(host.bpffs, path=str(host.bpffs / "copy"), source=str(peers), kind="map")
    assert done["id"] == peers


def test_a_pin_is_replaced_in_one_step(host, peers):
    path = host.bpffs / "copy"
    pin(path=str(path), source=str(peers), kind="map", mode="0644")
    with libbpf.create_map(libbpf.MAP_TYPE_SOCKHASH, "other", 4, 8, 4) as other:
        number = libbpf.map_info(other).id
        (host.bpffs / "left").mkdir()
        libbpf.pin(other, str(host.bpffs / "copy_new"))  # as a run killed in the middle leaves it
        four_times(host.bpffs, path=str(path), source=str(number), kind="map")
    assert objects.at(str(path)).id == number
    assert access(path)[0] == 0o644
    assert sorted(os.listdir(host.bpffs)) == sorted({*os.listdir(host.bpffs)} - {"copy_new"})


def test_a_step_that_fails_undoes_the_ones_before(host, peers):
    """Without CAP_CHOWN the owner cannot be set, so what was made for it goes again."""
    before = tree(host.bpffs)
    for options in (
        {"path": str(host.bpffs / "a" / "b"), "state": "directory"},
        {"path": str(host.bpffs / "copy"), "source": str(peers), "kind": "map"},
    ):
        failed = run_module("bpffs_pin", {"owner": "1", **options}, prefix=("setpriv", "--bounding-set", "-chown"))
        assert failed["failed"]
        assert "Operation not permitted" in failed["msg"]
        assert tree(host.bpffs) == before


def test_bad_input_gets_one_line_and_changes_nothing(host, peers, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (host.bpffs / "folder").mkdir()
    (host.bpffs / "folder" / "inner").mkdir()
    here = str(host.bpffs / "peers")
    cases = [
        ({"path": f"{tmp_path}/x", "state": "directory"}, "not on a bpffs"),
        ({"path": f"{tmp_path}/x", "source": here}, "not on a bpffs"),
        ({"path": "/etc/passwd", "state": "absent"}, "not on a bpffs"),
        ({"path": f"{tmp_path}/full", "state": "mounted"}, "would hide 1 entries, such as file"),
        ({"path": "/etc/passwd", "state": "mounted"}, "is a file"),
        ({"path": f"{host.bpffs}/a.b", "state": "directory"}, "a bpffs allows no dot in a name"),
        ({"path": f"{host.bpffs}/a.b/c", "state": "directory"}, "a bpffs allows no dot in a name"),
        ({"path": f"{host.bpffs}/x", "source": "999999999", "kind": "map"}, "there is no map 999999999"),
        ({"path": f"{host.bpffs}/x", "source": str(peers)}, "its kind is not given"),
        ({"path": f"{host.bpffs}/x", "source": here, "kind": "link"}, "is a map, not a link"),
        ({"path": f"{host.bpffs}/x", "source": "/etc/passwd"}, "source: /etc/passwd is not a pin"),
        ({"path": f"{host.bpffs}/x", "source": f"{host.bpffs}/folder"}, "is a directory, not a pin"),
        ({"path": f"{host.bpffs}/x", "source": f"{host.bpffs}/none"}, "there is no object"),
        ({"path": f"{host.bpffs}/no/x", "source": here}, f"{host.bpffs}/no does not exist"),
        ({"path": f"{host.bpffs}/folder", "source": here}, "is a directory, not a pin"),
        ({"path": f"{host.bpffs}/folder", "state": "absent"}, "holds inner; remove those first"),
        ({"path": str(host.bpffs), "state": "absent"}, "the mount point of a bpffs"),
        ({"path": here, "kind": "program", "state": "absent"}, "is a pin of a map, not of a program"),
        ({"path": here, "source": here, "mode": "rw"}, "mode: rw is not a mode in octal"),
        ({"path": here, "source": here, "owner": "nobody-at-all"}, "owner: nobody-at-all is unknown"),
        ({"path": here}, "state is present but all of the following are missing: source"),
    ]
    before = (tree(host.bpffs), mounts(tmp_path))
    for options, words in cases:
        done = pin(**options)
        assert done["failed"], options
        assert words in done["msg"], done["msg"]
        assert "\n" not in done["msg"]
        assert (tree(host.bpffs), mounts(tmp_path)) == before, options


def test_check_mode_on_a_bare_host(tmp_path):
    """No bpffs yet: a task before this one would have mounted it."""
    before = mounts(tmp_path)
    for options in (
        {"path": f"{tmp_path}/bpf", "state": "mounted"},
        {"path": f"{tmp_path}/bpf/sockredir", "state": "directory", "mode": "0700"},
        {"path": f"{tmp_path}/bpf/sockredir/copy", "source": f"{tmp_path}/bpf/sockredir/peers", "kind": "map"},
    ):
        said = pin(check=True, **options)
        assert not said["failed"], said
        assert said["changed"]
        assert f"{options['path']}: absent" in said["diff"]["before"]
    for check in (True, False):
        assert not pin(path=f"{tmp_path}/bpf/sockredir/copy", state="absent", check=check)["changed"]
    assert mounts(tmp_path) == before
    assert list(tmp_path.iterdir()) == []


def test_it_waits_for_its_turn(host, state_dir):
    wanted = {"path": f"{host.bpffs}/mine", "state": "directory"}
    with lock.hold(str(state_dir), 0):
        refused = pin(lock_timeout=0, **wanted)
        assert f"another run (process {os.getpid()}) has held {state_dir}/lock for the last 0 s" in refused["msg"]
        assert not (host.bpffs / "mine").exists()
        assert pin(check=True, **wanted)["changed"], "who only looks needs no turn"
    assert pin(lock_timeout=0, **wanted)["changed"]
