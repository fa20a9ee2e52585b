# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockmap_program that fails or is killed midway: the old state or the new one, and the next run goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import apply as program_apply
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source
from support.collection import ROOT

ALL = {"events", "flows", "peers", "sockops", "verdict"}
UPGRADE = {"config": {"first_port": 3}, "defines": {"WIDER": 1}, "recreate": True}
BOTH = pytest.mark.parametrize("options", [{}, UPGRADE], ids=["first", "upgrade"])


def make_request(pair, options):
    return program_source.Options(
        "pair", str(pair.sandbox.pin_dir), str(pair.sandbox.state_dir), str(pair.src), **options
    )


def contents(state):
    """The state's files by content: under which number a manifest is kept does not matter."""
    return sorted(content for content in state.values() if isinstance(content, bytes))


def fail_at(number, monkeypatch):
    """Let the step with this number fail."""
    real, done = program_apply.Handlers.handlers, []

    def handlers(self):
        def failing(handler):
            def run(step):
                done.append(step)
                if len(done) == number:
                    raise SockredirError(f"failed on purpose at {step.verb} {step.subject}")
                return handler(step)

            return run

        return {verb: failing(handler) for verb, handler in real(self).items()}

    monkeypatch.setattr(program_apply.Handlers, "handlers", handlers)


@BOTH
def test_a_failure_at_any_step_leaves_all_as_it_was(pair, options):
    if options:
        pair.run()
    pins, state = pair.everything()
    request = make_request(pair, options)
    number = len(program.present(request, check=True).plan)
    assert number >= 6
    for step in range(1, number + 1):
        with pytest.MonkeyPatch.context() as monkeypatch:
            fail_at(step, monkeypatch)
            with pytest.raises(SockredirError, match="failed on purpose") as caught:
                program.present(request)
        assert "could not be undone" not in caught.value.detail
        assert pair.pins() == pins, str(caught.value)
        assert contents(pair.state()) == contents(state), str(caught.value)
    assert program.present(request).plan
    assert program.present(request).plan == []


KILLED = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.transaction import apply
seen = []
def watch(when, step):
    seen.append(when)
    if len(seen) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
program.present(program_source.Options(**json.loads(sys.argv[3])), watch=watch)
"""


@BOTH
def test_killed_at_any_step_the_next_run_converges(pair, options):
    if options:
        pair.run()
    old = pair.pins()
    number = 2 * len(program.present(make_request(pair, options), check=True).plan)
    for moment in range(1, number + 2):
        request = json.dumps(make_request(pair, options)._asdict())
        command = [sys.executable, "-c", KILLED, str(ROOT / "tests"), str(moment), request]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ended.returncode == (-signal.SIGKILL if moment <= number else 0), ended.stderr
        program.present(make_request(pair, options))
        assert program.present(make_request(pair, options)).plan == []
        assert set(pair.pins()) == ALL
        if options:
            assert pair.pins()["peers"] == old["peers"]
            program.present(make_request(pair, {"recreate": True}))
        else:
            program.absent("pair", str(pair.sandbox.pin_dir), str(pair.sandbox.state_dir))
            assert pair.pins() == {}
