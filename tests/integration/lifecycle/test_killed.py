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
from ansible_collections.ebpf.sockredir.plugins.module_utils import attachment, hosting, lifecycle, program
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, objects
from ansible_collections.ebpf.sockredir.plugins.module_utils.plan.attachment import Wanted
from ansible_collections.ebpf.sockredir.plugins.module_utils.plan.host import drift
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock
from support.connection import connection

_MOST_STEPS = 200
OPTIONS = {
    "state": "present",
    "mode": "enforce",
    "ports": [],
    "exclude_ports": [],
    "cidrs": [],
    "cross_netns": False,
    "memory_budget": "16 MiB",
    "demote_below": 30000,
    "demote_after": 32,
    "persist": False,
    "services": [],
    "restart_services": False,
    "wanted": {},
    "commit": True,
    "lock_timeout": 10,
}


class Scene:
    """What can be done to a host, in this very process."""

    def __init__(self, whole) -> None:
        self.whole = whole
        self.state_dir = str(whole.corner.state_dir)

    def enable(self, version, watch=None) -> None:
        pins, cgroup = str(self.whole.corner.pin_dir), str(self.whole.corner.cgroup)
        request = program.Request(
            "sockredir",
            pins,
            self.state_dir,
            str(self.whole.objects_of[version]),
            max_entries={"flows": 1024, "peers": 2048},
        )
        with lock.hold(self.state_dir):
            program.present(request, watch=watch)
        for wanted in (
            Wanted(f"{pins}/verdict", "map", f"{pins}/peers"),
            Wanted(f"{pins}/sockops", "cgroup", cgroup, create_cgroup=True),
        ):
            attachment.ensure(wanted, self.state_dir, watch)
        hosting.present(self.options(), False, watch)

    def options(self):
        return {**OPTIONS, "cgroup": str(self.whole.corner.cgroup), **self.whole.host_places}

    def disable(self, watch=None) -> None:
        hosting.absent(self.options(), False, watch)

    def rollback(self, watch=None) -> None:
        lifecycle.rollback(self.state_dir, watch)

    def drift(self):
        return drift(lifecycle.compare(self.state_dir).steps)


def run(work, die_at=None):
    """Run in a process of its own; returns how many steps it did, or None where it was killed before one of them."""
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
def scene(whole):
    made = Scene(whole)
    yield made
    run(made.disable)


@pytest.fixture
def digests(scene):
    """The identities of the versions, as loaded in this scene."""
    found = {}
    for version in ("v1", "v2", "v3"):
        run(lambda watch, version=version: scene.enable(version, watch))
        found[version] = scene.whole.pin("verdict").object.digest
    run(scene.disable)
    assert settled(lambda: not ours(scene.whole, set(found.values())))
    return found


def whole_again(scene, digests, version) -> None:
    """Exactly one version, with nothing left over."""
    assert scene.drift() == []
    assert scene.whole.pin("verdict").object.digest == digests[version]
    wanted = {scene.whole.id("sockops"), scene.whole.id("verdict")}
    assert settled(lambda: ours(scene.whole, set(digests.values())) == wanted)
    names = {path.name for path in scene.whole.corner.pin_dir.iterdir()}
    links = {name for name in names if name.startswith("link_")}
    assert names - links == {"sockops", "verdict", *scene.whole.pin_names}
    assert len(links) == 1


def nothing_left(scene, digests) -> None:
    assert settled(lambda: not ours(scene.whole, set(digests.values())))
    assert scene.whole.listing() == []


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


def test_first_enable(scene, digests):
    for _step in each_step(lambda: run(scene.disable), lambda watch: scene.enable("v1", watch)):
        with traffic(scene.whole) as works:
            assert run(lambda watch: scene.enable("v1", watch)) is not None
            works()
        whole_again(scene, digests, "v1")


def test_upgrade(scene, digests):
    def prepare() -> None:
        run(scene.disable)
        run(lambda watch: scene.enable("v1", watch))

    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            prepare()
            works = stack.enter_context(traffic(scene.whole))

        for _step in each_step(prepared, lambda watch: scene.enable("v2", watch)):
            works()
            assert run(lambda watch: scene.enable("v2", watch)) is not None
            works()
            stack.close()
            whole_again(scene, digests, "v2")


def test_rollback(scene, digests):
    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            run(scene.disable)
            run(lambda watch: scene.enable("v1", watch))
            run(lambda watch: scene.enable("v2", watch))
            works = stack.enter_context(traffic(scene.whole))

        for _step in each_step(prepared, scene.rollback):
            works()
            assert run(scene.rollback) is not None
            works()
            stack.close()
            whole_again(scene, digests, "v1")


def test_disable(scene, digests):
    with contextlib.ExitStack() as stack:
        works = None

        def prepared() -> None:
            nonlocal works
            stack.close()
            run(lambda watch: scene.enable("v1", watch))
            works = stack.enter_context(traffic(scene.whole))

        for _step in each_step(prepared, scene.disable):
            works()
            assert run(scene.disable) is not None
            works()
            stack.close()
            nothing_left(scene, digests)
