# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan runs whole, or what it did is undone in reverse."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import Step, describe, diff
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.transaction import apply
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError


class Host:
    """Counts up on ``set``; refuses the subject ``bad``."""

    def __init__(self, stubborn: str = "") -> None:
        self.log = []
        self.stubborn = stubborn

    def set(self, step: Step):
        if step.subject == "bad":
            raise SockredirError("bad was refused", "do not ask", "the long story")
        if step.subject == "broken":
            raise OSError(28, "No space left on device")
        self.log.append(f"did {step.subject}")
        return lambda: self.undo(step.subject)

    def once(self, step: Step):
        self.log.append(f"did {step.subject}")

    def undo(self, subject: str) -> None:
        if subject == self.stubborn:
            raise OSError("stuck")
        self.log.append(f"undid {subject}")

    def run(self, *steps: Step, watch=None) -> None:
        apply(steps, {"set": self.set, "once": self.once}, watch)


def steps(*subjects: str):
    return [Step("set", subject, None, 1) for subject in subjects]


def test_all_steps_run_in_order():
    host = Host()
    host.run(*steps("a", "b"))
    assert host.log == ["did a", "did b"]


def test_failure_undoes_in_reverse_and_keeps_the_error():
    host = Host()
    with pytest.raises(SockredirError) as caught:
        host.run(*steps("a", "b", "bad", "c"))
    assert host.log == ["did a", "did b", "undid b", "undid a"]
    assert (caught.value.message, caught.value.cure, caught.value.detail) == (
        "bad was refused",
        "do not ask",
        "the long story",
    )


def test_a_step_without_undo_is_passed_over():
    host = Host()
    with pytest.raises(SockredirError):
        host.run(Step("once", "a"), *steps("b", "bad"))
    assert host.log == ["did a", "did b", "undid b"]


def test_a_foreign_error_names_its_step():
    with pytest.raises(SockredirError, match=r"set broken: null -> 1 failed: .*No space left"):
        Host().run(*steps("broken"))


def test_an_undo_that_fails_is_named_and_the_others_still_run():
    host = Host(stubborn="b")
    with pytest.raises(SockredirError) as caught:
        host.run(*steps("a", "b", "bad"))
    assert host.log == ["did a", "did b", "undid a"]
    assert caught.value.detail.splitlines() == ["the long story", "could not be undone:", "stuck"]


def test_watch_sees_each_step_before_and_after():
    seen = []
    Host().run(*steps("a", "b"), watch=lambda when, step: seen.append((when, step.subject)))
    assert seen == [("before", "a"), ("after", "a"), ("before", "b"), ("after", "b")]


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (Step("pin", "/p", None, {"id": 1}), "/p: absent\n", '/p: {"id": 1}\n'),
        (Step("pin", "/p", "old", None), "/p: old\n", "/p: absent\n"),
        (Step("pin", "/p", 1, [2]), "/p: 1\n", "/p: [2]\n"),
    ],
)
def test_diff_has_one_line_a_subject(step, before, after):
    assert diff([step]) == {"before": before, "after": after}


def test_describe_is_one_line():
    assert describe(Step("pin", "/p", None, {"b": 1, "a": 2})) == 'pin /p: null -> {"a": 2, "b": 1}'


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SockredirError("no clang"), "no clang"),
        (SockredirError("no clang", "install it"), "no clang; install it"),
        (SockredirError("two\nlines", "a\n cure", "detail"), "two lines; a cure"),
    ],
)
def test_an_error_is_one_line(error, line):
    assert str(error) == line


def test_a_plan_made_on_the_way_that_fails_undoes_what_was_done():
    def planned():
        yield from steps("a", "b")
        raise SockredirError("no way on")

    host = Host()
    with pytest.raises(SockredirError, match="no way on"):
        apply(planned(), {"set": host.set})
    assert host.log == ["did a", "did b", "undid b", "undid a"]
