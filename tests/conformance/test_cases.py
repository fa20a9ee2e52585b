# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each case in each of its families: the same on plain TCP and redirected, or its named limit."""

from __future__ import annotations

import pytest
from conform.cases import CASES

_RUNS = [
    pytest.param(case, family, id=key) for case in CASES.values() for family, key in zip(case.families, case.keys())
]


@pytest.mark.parametrize(("case", "family"), _RUNS)
def test_same_as_tcp(bench, case, family):
    result = bench.run(case, family)
    if result.status == "skipped":
        pytest.skip(result.detail)
    assert result.status == "passed", result.detail
