# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 before every step: the host works, and the next run makes it whole.

The runs are the modules' own functions in a process of their own, which kills itself where it is told to.
"""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, objects
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import mode, restore
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.connection import connection
from support.waiting import wait_for

_MOST_STEPS = 200
PROGRAMS = ("sockops", "verdict", "receive")


def run(work, die_at=None):
    """Run in a process of its own; returns how many steps it did, or None if it was killed before one of them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(work, die_at, writer)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read().decode()
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert text.isdigit(), text
    return int(text)


def _child(work, die_at, writer) -> None:
    steps = 0

    def watch(when, _step) -> None:
        nonlocal steps
        steps += when == "before"
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        work(watch)
        os.write(writer, str(steps).encode())
    except BaseException as error:
        os.write(writer, repr(error).encode())
    finally:
        os._exit(0)


def rollback_of(managed):
    return lambda watch: restore.rollback(str(managed.sandbox.state_dir), watch)


@contextlib.contextmanager
def traffic(managed):
    """A connection that goes on all the time, and a new one each time it is looked at."""
    with connection(managed.sandbox.cgroup) as old:

        def works() -> None:
            with connection(managed.sandbox.cgroup) as new:
                for one in (old, new):
                    for source, target in (("client", "server"), ("server", "client")):
                        one.send(source, 3000)
                        assert one.receive(target, 3000)

        works()
        yield works


def ours(managed, digests):
    """The programs of this test in the kernel."""
    found = (objects.program_by_id(number) for number in libbpf.program_ids())
    return {one.id for one in found if one and one.digest in digests}


@pytest.fixture
def digests(managed):
    """The identities of the versions, as loaded in this scene."""
    found = {}
    for version in ("v1", "v2", "v3"):
        run(lambda watch, version=version: managed.enable_here(version, watch=watch))
        found[version] = managed.pin("verdict").object.digest
    run(managed.disable_here)
    wait_for(lambda: not ours(managed, set(found.values())))
    return found


def is_exactly(managed, digests, version) -> None:
    """Exactly one version, with nothing left over."""
    assert managed.drift_here() == []
    assert managed.pin("verdict").object.digest == digests[version]
    wanted = {managed.id(name) for name in PROGRAMS}
    wait_for(lambda: ours(managed, set(digests.values())) == wanted)
    names = {path.name for path in managed.sandbox.pin_dir.iterdir()}
    links = {name for name in names if name.startswith("link_")}
    assert names - links == {*PROGRAMS, *managed.pin_names}
    assert len(links) == 1


def nothing_left(managed, digests) -> None:
    wait_for(lambda: not ours(managed, set(digests.values())))
    assert managed.listing() == []


def each_step(prepare, work):
    """Kill the work before its first step, its second ...; yields after each kill, ends when it runs through."""
    for number in range(1, _MOST_STEPS):
        prepare()
        done = run(work, die_at=number)
        if done is not None:
            assert done == number - 1 > 6, "too few steps to be true"
            return
        yield number
    raise AssertionError("it never ends")


def test_first_enable(managed, digests):
    for _step in each_step(lambda: run(managed.disable_here), lambda watch: managed.enable_here("v1", watch=watch)):
        with traffic(managed) as works:
            assert run(lambda watch: managed.enable_here("v1", watch=watch)) is not None
            works()
        is_exactly(managed, digests, "v1")


def test_upgrade(managed, digests):
    def prepare() -> None:
        run(managed.disable_here)
        run(lambda watch: managed.enable_here("v1", watch=watch))

    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            prepare()
            works = stack.enter_context(traffic(managed))

        for _step in each_step(prepared, lambda watch: managed.enable_here("v2", watch=watch)):
            works()
            assert run(lambda watch: managed.enable_here("v2", watch=watch)) is not None
            works()
            stack.close()
            is_exactly(managed, digests, "v2")


def test_rollback(managed, digests):
    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            run(managed.disable_here)
            run(lambda watch: managed.enable_here("v1", watch=watch))
            run(lambda watch: managed.enable_here("v2", watch=watch))
            works = stack.enter_context(traffic(managed))

        for _step in each_step(prepared, rollback_of(managed)):
            works()
            assert run(rollback_of(managed)) is not None
            works()
            stack.close()
            is_exactly(managed, digests, "v1")


def test_disable(managed, digests):
    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            run(lambda watch: managed.enable_here("v1", watch=watch))
            works = stack.enter_context(traffic(managed))

        for _step in each_step(prepared, managed.disable_here):
            works()
            assert run(managed.disable_here) is not None
            works()
            stack.close()
            nothing_left(managed, digests)


def test_restore(managed, digests):
    """As at boot: nothing is loaded, connections are plain until it has come through."""

    def prepared() -> None:
        run(managed.disable_here)
        run(lambda watch: managed.enable_here("v1", watch=watch))
        for path in managed.sandbox.pin_dir.iterdir():
            path.unlink()
        managed.sandbox.pin_dir.rmdir()
        manifest.amend(str(managed.sandbox.state_dir), lambda document: document.update(boot_id="an earlier boot"))
        wait_for(lambda: not ours(managed, set(digests.values())))

    def restored(watch) -> None:
        restore.restore(str(managed.sandbox.state_dir), watch)

    for _step in each_step(prepared, restored):
        with traffic(managed) as works:
            assert run(restored) is not None
            works()
        is_exactly(managed, digests, "v1")


def test_mode(managed, digests):
    run(lambda watch: managed.enable_here("v1", watch=watch))

    def change(name):
        return lambda watch: mode.set_mode(str(managed.sandbox.state_dir), name, watch)

    with traffic(managed) as works:
        for die_at in (1, 2):
            assert run(change("drain"), die_at) is None
            works()
            assert run(change("drain")) is not None
            assert managed.drift_here() == []
            assert run(change("enforce"), die_at) is None
            works()
            assert run(change("enforce")) is not None
            assert managed.drift_here() == []
    is_exactly(managed, digests, "v1")
