# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conformance suite's own decisions, and that docs/limits.md lists the limits that its cases declare."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "conformance"))

from conform.app import pattern, shown  # noqa: E402
from conform.case import Limit, differences, judge  # noqa: E402
from conform.cases import CASES  # noqa: E402

LIMITS = ROOT / "docs" / "limits.md"


def documented():
    """{name: (set of cases, kernels)} of docs/limits.md."""
    found = {}
    for section in re.split(r"^## ", LIMITS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        name = section.splitlines()[0].strip()
        listed = re.search(r"^Cases: (.+)$", section, flags=re.MULTILINE)
        kernels = re.search(r"^Kernels: (.+)$", section, flags=re.MULTILINE)
        if listed and kernels:
            found[name] = (set(re.findall(r"`([\w.]+)`", listed.group(1))), kernels.group(1).strip())
    return found


def declared():
    """The same of the cases."""
    found = {}
    for case in CASES.values():
        if case.limit:
            names, kernels = found.setdefault(case.limit.name, (set(), set()))
            names.add(f"{case.group}.{case.name}")
            kernels.add(case.limit.kernels)
    return found


def test_documentation_lists_the_limits_of_the_cases():
    assert {name: names for name, (names, _k) in documented().items()} == {
        name: names for name, (names, _k) in declared().items()
    }


def test_documentation_names_the_kernels_of_the_cases():
    def text(kernels):
        first, last = (".".join(map(str, part)) if part else "" for part in kernels)
        if not first and not last:
            return "all"
        return (f"from {first}" if first else "") + (" to " if first and last else "") + (f"to {last}" if last else "")

    for name, (_names, kernels) in declared().items():
        assert any(documented()[name][1].startswith(text(one)) for one in kernels), name


def test_every_case_says_what_it_is_about():
    assert [case.name for case in CASES.values() if len(case.title) < 10] == []


SAME = [["a", 1], ["b", 2]]


@pytest.mark.parametrize(
    ("limit", "release", "redirected", "wrong"),
    [
        (None, (6, 1), SAME, []),
        (None, (6, 1), [["a", 1], ["b", 3]], ["b: TCP gives 2, redirected 3"]),
        (None, (6, 1), [["a", 1]], ["b: TCP gives 2, redirected None"]),
        (None, (6, 1), [["b", 2], ["a", 1]], ["order of events: TCP gives ['a', 'b'], redirected ['b', 'a']"]),
        (Limit("l", {"b": 3}), (6, 1), [["a", 1], ["b", 3]], []),
        (Limit("l", {"b": 3}), (6, 1), [["a", 1], ["b", 4]], ["b: TCP gives 2, redirected 4"]),
        (Limit("l", {"b": 3}), (6, 1), [["a", 9], ["b", 3]], ["a: TCP gives 1, redirected 9"]),
        (Limit("l", {"b": 3}), (6, 1), SAME, ["limit l no longer shows at 'b': narrow or remove it"]),
        (Limit("l", {"b": 3}, varies=True), (6, 1), SAME, []),
        (Limit("l", {"b": 3}, kernels=(None, (6, 12))), (6, 12, 43), [["a", 1], ["b", 3]], []),
        (
            Limit("l", {"b": 3}, kernels=(None, (6, 12))),
            (6, 13),
            [["a", 1], ["b", 3]],
            ["b: TCP gives 2, redirected 3"],
        ),
        (Limit("l", {"b": 3}, kernels=((6, 2), None)), (6, 1), SAME, []),
        (
            Limit("l", {"b": 3}, kernels=((6, 2), None)),
            (6, 2, 1),
            SAME,
            ["limit l no longer shows at 'b': narrow or remove it"],
        ),
    ],
)
def test_judgement(limit, release, redirected, wrong):
    assert judge(limit, release, SAME, redirected) == wrong


def test_differences_tell_a_missing_line_from_none():
    assert differences([["a", 1]], [["a", 1], ["b", 2]]) == [("b", None, 2)]


def test_long_bytes_are_shown_by_digest():
    assert shown(b"x" * 48) == repr(b"x" * 48)
    assert shown(b"x" * 49).startswith("49 bytes sha256:")
    assert shown(b"x" * 49) != shown(b"y" * 49)


def test_beginnings_of_a_pattern_are_patterns():
    whole = pattern(3 << 20)
    assert [whole[:size] == pattern(size) for size in (0, 1, 1 << 20, (1 << 20) + 5, 3 << 20)] == [True] * 5
    assert pattern(100, 1) != pattern(100, 2)
