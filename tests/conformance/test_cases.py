# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each case: the same on plain TCP and redirected, or its named limit; and so in every state a socket can be in."""

from __future__ import annotations

import pytest
from conform.cases import CASES
from conform.states import STATES

_RUNS = [
    pytest.param(case, family, id=key) for case in CASES.values() for family, key in zip(case.families, case.keys())
]
_IN_STATES = [pytest.param(case, id=f"{case.group}.{case.name}") for case in CASES.values() if case.in_states]


@pytest.mark.parametrize(("case", "family"), _RUNS)
def test_same_as_tcp(bench, case, family):
    result = bench.run(case, family)
    if result.status == "skipped":
        pytest.skip(result.detail)
    assert result.status == "passed", result.detail


@pytest.mark.parametrize("case", _IN_STATES)
def test_same_in_every_state(bench, case):
    results = bench.run_in_states(case, case.families[0], list(STATES))
    if all(result.status == "skipped" for result in results):
        pytest.skip(results[0].detail)
    failed = [f"{result.key}: {result.detail}" for result in results if result.status == "failed"]
    assert not failed, "\n".join(failed)
