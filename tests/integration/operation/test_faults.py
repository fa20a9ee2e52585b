# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults from outside: a clear line, a host that works, and convergence on the next run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import install
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import restore, states
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock, manifest
from support.connection import connection
from support.host import wait_until_detached


def redirects(managed):
    with connection(managed.sandbox.cgroup) as pair:
        pair.send("client", 5000)
        assert pair.receive("server", 5000)
        return pair.redirected("client")


def lose_everything(managed):
    """What a reboot takes away."""
    for path in managed.sandbox.pin_dir.iterdir():
        path.unlink()
    managed.sandbox.pin_dir.rmdir()
    wait_until_detached(managed.sandbox.cgroup)
    manifest.amend(str(managed.sandbox.state_dir), lambda document: document.update(boot_id="an earlier boot"))


# A damaged manifest or object at boot.


def object_corrupted(managed):
    (path,) = (managed.sandbox.state_dir / "objects").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    return "is damaged: its content has the sha256"


def object_missing(managed):
    (path,) = (managed.sandbox.state_dir / "objects").iterdir()
    path.unlink()
    return "cannot read the object"


def manifest_torn(managed):
    path = managed.sandbox.state_dir / "current"
    path.write_text(path.read_text()[:200])
    return "is damaged: "


def manifest_edited(managed):
    path = managed.sandbox.state_dir / "current"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cgroup": "/"}))
    return "it was changed by hand"


@pytest.mark.parametrize("damage", [object_corrupted, object_missing, manifest_torn, manifest_edited])
def test_a_damaged_state_at_boot(managed, damage):
    managed.enable_here()
    lose_everything(managed)
    words = damage(managed)
    done = managed.ctl("restore")
    assert done.returncode == 3
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not redirects(managed)
    assert not managed.sandbox.pin_dir.exists() or list(managed.sandbox.pin_dir.iterdir()) == []
    assert managed.ctl("status").returncode == 1
    managed.enable_here()
    assert redirects(managed)
    assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout


# A boot in the middle of a change.


def test_a_boot_amid_an_upgrade_goes_back_to_what_was_committed(managed):
    managed.enable_here("v1")
    digest = managed.pin("verdict").object.digest
    managed.enable_here("v2", commit=False)
    assert managed.kinds() == ["unfinished"]
    lose_everything(managed)
    assert managed.ctl("restore").returncode == 0
    assert managed.pin("verdict").object.digest == digest
    assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout
    assert redirects(managed)


def test_a_boot_amid_the_first_enable_restores_nothing(managed):
    managed.enable_here("v1", commit=False)
    lose_everything(managed)
    done = managed.ctl("restore")
    assert done.returncode == 3
    assert "there is no previous manifest" in done.stderr
    assert not redirects(managed)
    managed.enable_here("v1")
    assert managed.ctl("status").returncode == 0


def test_a_change_that_is_not_proved_goes_back(managed):
    managed.enable_here("v1", mode="observe")
    before = managed.pin("verdict").object.digest
    assert managed.host(state="rolled_back")["failed"], "there is nothing before it"
    managed.enable_here("v2", commit=False, mode="enforce")
    assert not managed.enable_here("v2", commit=False, mode="enforce")[-1], "it waits for its proof, and is no change"
    checked = managed.host(check=True, state="rolled_back")
    assert checked["changed"]
    done = managed.host(state="rolled_back")
    assert not done["failed"], done
    assert done["committed"]
    assert managed.pin("verdict").object.digest == before
    assert managed.status()["mode"] == "observe"
    assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout
    assert managed.ctl("rollback").returncode == 3, "the unproved change is forgotten"


def test_a_first_change_that_is_not_proved_leaves_nothing(managed):
    before = managed.listing()
    managed.enable_here("v1", commit=False)
    done = managed.host(state="rolled_back")
    assert not done["failed"], done
    assert managed.listing() == before


# Full and read-only disks.


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path):
    filler = path / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)
    return filler


@pytest.mark.parametrize("where", ["state_dir", "prefix"])
def test_the_disk_is_full(managed, where, monkeypatch):
    disk = {"state_dir": managed.sandbox.state_dir, "prefix": managed.prefix}[where]
    with small_disk(disk, "8m"):  # two versions of the library, with their byte code
        managed.enable_here("v1")
        before = managed.listing()
        filler = fill(disk)
        with connection(managed.sandbox.cgroup) as pair:
            if where == "prefix":
                package = {**install.travelled(), "more.py": "#" * 100_000}
                monkeypatch.setattr(install, "travelled", lambda: package)
            for _attempt in range(2):
                with pytest.raises(SockredirError, match="No space left on device"):
                    managed.enable_here("v2")
            pair.send("client", 3000)
            assert pair.receive("server", 3000)
        if where == "state_dir":
            assert managed.drift_here() == []
        filler.unlink()
        assert redirects(managed)
        managed.enable_here("v2")
        assert managed.drift_here() == []
        kept = {path for path in before if not re.search("manifests/|objects/|package-", path)}
        assert kept <= set(managed.listing())
        fill(disk)
        managed.disable_here()  # needs no room
        assert [path.split("/")[1] for path in managed.listing()] == ["filler"]
        (disk / "filler").unlink()


def test_the_disk_is_read_only(managed):
    with small_disk(managed.sandbox.state_dir, "4m") as disk:
        managed.enable_here("v1")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for verb in (["mode", "drain"], ["rollback"], ["restore"]):
            done = managed.ctl(*verb)
            assert done.returncode == 3, done
            assert "Read-only file system" in done.stderr
        with pytest.raises(SockredirError, match="Read-only file system"):
            managed.disable_here()
        assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout
        assert redirects(managed)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        managed.disable_here()


# Two runs at once.


def test_two_runs_at_once_take_turns(managed):
    results = {}
    runs = [threading.Thread(target=lambda v=v: results.update({v: managed.enable(v)})) for v in ("v1", "v2")]
    for run in runs:
        run.start()
    for run in runs:
        run.join(300)
    assert sorted(results) == ["v1", "v2"]
    managed.enable("v1")
    assert managed.ctl("status").returncode == 0, managed.ctl("status").stdout
    assert redirects(managed)


def test_a_run_that_waits_too_long_says_for_whom(managed):
    managed.enable_here()
    words = f"another run (process {os.getpid()}) has held {managed.sandbox.state_dir}/lock for the last 1 s"
    with lock.hold(str(managed.sandbox.state_dir)):
        for state in ("absent", "rolled_back"):
            done = managed.host(state=state, lock_timeout=1)
            assert words in done["msg"]
        assert words in managed.host(mode="drain", lock_timeout=1)["msg"]
        for verb in (["mode", "drain"], ["rollback"], ["restore"]):
            done = managed.ctl(*verb, "--wait", "1")
            assert (done.returncode, words in done.stderr) == (3, True), done
        assert managed.ctl("status").returncode == 0
        assert managed.ctl("counters").returncode == 0


# The clock.


def test_the_clock_does_not_matter(managed, monkeypatch):
    managed.enable_here("v1")
    document = managed.sandbox.state_dir / "current"
    with connection(managed.sandbox.cgroup):
        managed.enable_here("v2")
        for path in [document, *(managed.prefix / "lib" / "sockredir").rglob("*.py")]:
            os.utime(path, (4e9, 4e9))
        manifest.amend(
            str(managed.sandbox.state_dir),
            lambda now: [entry.update(since="2099-01-01T00:00:00Z") for entry in now["draining"]],
        )
        assert not any(managed.enable_here("v2"))
        assert {entry["since"][:4] for entry in managed.status()["draining"]} == {"2099"}
    assert managed.ctl("rollback").returncode == 0
    assert managed.ctl("status").returncode == 0


# Another cgroup.


def test_the_cgroup_moves(managed):
    managed.enable_here()
    old, new = managed.sandbox.cgroup, managed.sandbox.cgroup / "inner"
    pins, state_dir = str(managed.sandbox.pin_dir), str(managed.sandbox.state_dir)
    wanted = managed.tasks(cgroup=str(new))[-2][1]
    from support.module import run_module

    assert run_module("sockmap_attach", wanted)["changed"]
    options = managed.here(cgroup=str(new))
    assert [step.verb.split()[-1] for step in states.present(options, True).steps][0] == "detach_link"
    states.present(options, False)
    assert not states.present(options, False).steps
    kind = libbpf.ATTACH_CGROUP_SOCK_OPS
    for path, number in ((old, []), (new, [managed.id("sockops")])):
        with attachments.opened("cgroup", str(path)) as target:
            assert libbpf.query(target, kind).program_ids == number
    assert managed.drift_here() == []
    assert restore.rollback(state_dir)
    for path, number in ((old, [managed.id("sockops")]), (new, [])):
        if path.exists():
            with attachments.opened("cgroup", str(path)) as target:
                assert libbpf.query(target, kind).program_ids == number
    assert managed.drift_here() == []
    assert sorted(entry["cgroup"] for entry in manifest.current(state_dir)["attachments"] if entry["cgroup"]) == [
        str(old)
    ]
    assert pins


def test_what_is_installed_is_what_runs(managed):
    managed.enable()
    installed = install.installed(install.Places(str(managed.prefix)))
    assert installed == install.travelled(), "run from a checkout, all of it travels"


# Another version of the programs.


def test_disable_removes_programs_of_another_layout(managed, monkeypatch):
    managed.enable_here()
    with connection(managed.sandbox.cgroup) as pair:
        pair.send("client", 5000)
        assert pair.receive("server", 5000)
        monkeypatch.setattr(layout, "SETTINGS_SIZE", layout.SETTINGS_SIZE + 8)  # as a later version has it
        assert managed.disable_here().steps
        pair.send("client", 5000)
        assert pair.receive("server", 5000)
    assert managed.listing() == []
