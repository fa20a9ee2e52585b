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
import time

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, objects
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import mode, restore
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.connection import connection

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


def rollback_of(whole):
    return lambda watch: restore.rollback(str(whole.corner.state_dir), watch)


@contextlib.contextmanager
def traffic(whole):
    """A connection that goes on all the time, and a new one each time it is looked at."""
    with connection(whole.corner.cgroup) as old:

        def works() -> None:
            with connection(whole.corner.cgroup) as new:
                for one in (old, new):
                    for source, target in (("client", "server"), ("server", "client")):
                        one.send(source, 3000)
                        assert one.receive(target, 3000)

        works()
        yield works


def ours(whole, digests):
    """The programs of this test in the kernel."""
    found = (objects.program_by_id(number) for number in libbpf.program_ids())
    return {one.id for one in found if one and one.digest in digests}


def settled(condition):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def digests(whole):
    """The identities of the versions, as loaded in this scene."""
    found = {}
    for version in ("v1", "v2", "v3"):
        run(lambda watch, version=version: whole.enable_here(version, watch=watch))
        found[version] = whole.pin("verdict").object.digest
    run(whole.disable_here)
    assert settled(lambda: not ours(whole, set(found.values())))
    return found


def whole_again(whole, digests, version) -> None:
    """Exactly one version, with nothing left over."""
    assert whole.drift_here() == []
    assert whole.pin("verdict").object.digest == digests[version]
    wanted = {whole.id(name) for name in PROGRAMS}
    assert settled(lambda: ours(whole, set(digests.values())) == wanted)
    names = {path.name for path in whole.corner.pin_dir.iterdir()}
    links = {name for name in names if name.startswith("link_")}
    assert names - links == {*PROGRAMS, *whole.pin_names}
    assert len(links) == 1


def nothing_left(whole, digests) -> None:
    assert settled(lambda: not ours(whole, set(digests.values())))
    assert whole.listing() == []


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


def test_first_enable(whole, digests):
    for _step in each_step(lambda: run(whole.disable_here), lambda watch: whole.enable_here("v1", watch=watch)):
        with traffic(whole) as works:
            assert run(lambda watch: whole.enable_here("v1", watch=watch)) is not None
            works()
        whole_again(whole, digests, "v1")


def test_upgrade(whole, digests):
    def prepare() -> None:
        run(whole.disable_here)
        run(lambda watch: whole.enable_here("v1", watch=watch))

    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            prepare()
            works = stack.enter_context(traffic(whole))

        for _step in each_step(prepared, lambda watch: whole.enable_here("v2", watch=watch)):
            works()
            assert run(lambda watch: whole.enable_here("v2", watch=watch)) is not None
            works()
            stack.close()
            whole_again(whole, digests, "v2")


def test_rollback(whole, digests):
    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            run(whole.disable_here)
            run(lambda watch: whole.enable_here("v1", watch=watch))
            run(lambda watch: whole.enable_here("v2", watch=watch))
            works = stack.enter_context(traffic(whole))

        for _step in each_step(prepared, rollback_of(whole)):
            works()
            assert run(rollback_of(whole)) is not None
            works()
            stack.close()
            whole_again(whole, digests, "v1")


def test_disable(whole, digests):
    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            run(lambda watch: whole.enable_here("v1", watch=watch))
            works = stack.enter_context(traffic(whole))

        for _step in each_step(prepared, whole.disable_here):
            works()
            assert run(whole.disable_here) is not None
            works()
            stack.close()
            nothing_left(whole, digests)


def test_restore(whole, digests):
    """As at boot: nothing is loaded, connections are plain until it has come through."""

    def prepared() -> None:
        run(whole.disable_here)
        run(lambda watch: whole.enable_here("v1", watch=watch))
        for path in whole.corner.pin_dir.iterdir():
            path.unlink()
        whole.corner.pin_dir.rmdir()
        manifest.amend(str(whole.corner.state_dir), lambda document: document.update(boot_id="an earlier boot"))
        assert settled(lambda: not ours(whole, set(digests.values())))

    def restored(watch) -> None:
        restore.restore(str(whole.corner.state_dir), watch)

    for _step in each_step(prepared, restored):
        with traffic(whole) as works:
            assert run(restored) is not None
            works()
        whole_again(whole, digests, "v1")


def test_mode(whole, digests):
    run(lambda watch: whole.enable_here("v1", watch=watch))

    def change(name):
        return lambda watch: mode.set_mode(str(whole.corner.state_dir), name, watch)

    with traffic(whole) as works:
        for die_at in (1, 2):
            assert run(change("drain"), die_at) is None
            works()
            assert run(change("drain")) is not None
            assert whole.drift_here() == []
            assert run(change("enforce"), die_at) is None
            works()
            assert run(change("enforce")) is not None
            assert whole.drift_here() == []
    whole_again(whole, digests, "v1")
