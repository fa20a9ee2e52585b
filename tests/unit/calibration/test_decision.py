# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From measured turns to a size: what is clear, what is noise, what is missing."""

from __future__ import annotations

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration import decision
from ansible_collections.ebpf.sockredir.plugins.module_utils.calibration.decision import NEVER, SIZES, Turn
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings_value

KIB = 1024
FAST = (1.2, 1.3, 1.2, 1.25, 1.3)
SLOW = (0.8, 0.7, 0.8, 0.9, 0.7)


def turns(ratios):
    return [Turn(1e9, 1e9 * ratio) for ratio in ratios]


def streams(default, **by_kib):
    """A whole comparison; ``k64`` is what 64 KiB has in place of the default."""
    return {size: turns(by_kib.get(f"k{size // KIB}", default)) for size in SIZES}


@pytest.mark.parametrize(
    ("ratios", "won"),
    [
        (FAST, True),
        (SLOW, False),
        ((), False),
        ((2.0, 2.0), False),  # too few to say anything
        ((1.0, 1.0, 1.0, 1.0, 1.0), False),  # no margin
        ((1.09, 1.09, 1.09), False),
        ((1.1, 1.1, 1.1), True),
        ((0.5, 1.2, 1.2, 1.2, 1.2), True),  # one turn disturbed
        ((0.5, 0.9, 1.2, 1.2, 1.2), False),  # two of five are too many
        ((0.5,) * 3 + (1.2,) * 6, True),
        ((0.5,) * 4 + (1.2,) * 6, False),
        ((9.0, 9.0, 0.9, 0.9, 0.9), False),  # the plain turns disturbed
    ],
)
def test_a_size_is_won(ratios, won):
    assert decision.wins(turns(ratios)) is won


@pytest.mark.parametrize(
    ("measured", "smallest"),
    [
        (streams(FAST), 4 * KIB),
        (streams(SLOW), None),
        (streams(FAST, k4=SLOW, k8=SLOW, k16=SLOW), 24 * KIB),
        (streams(SLOW, k128=FAST), 128 * KIB),
        (streams(SLOW, k64=FAST, k128=FAST), 64 * KIB),
        (streams(SLOW, k16=FAST), None),  # one among slower ones is noise
        (streams(FAST, k128=SLOW), None),  # larger ones were not tried
        (streams(FAST, k48=SLOW), 64 * KIB),  # in doubt the larger size
        (streams(FAST, k48=()), 64 * KIB),
        (streams(FAST, k128=()), None),
        ({}, None),
        ({size: turns(FAST) for size in SIZES if size >= 32 * KIB}, 32 * KIB),
        ({size: turns(FAST) for size in SIZES if size != 64 * KIB}, 128 * KIB),
    ],
)
def test_the_smallest_size_from_which_on_all_are_won(measured, smallest):
    assert decision.stream_from(measured) == smallest


def test_where_none_is_won_every_message_counts_as_small():
    assert decision.demote_below(None) == NEVER
    assert decision.demote_below(64 * KIB) == 64 * KIB
    settings = settings_value.Settings(demote_below=NEVER)
    assert settings_value.decode_settings(settings_value.encode_settings(settings)) == settings


def test_the_manifest_has_medians_of_what_was_measured():
    measured = {4 * KIB: turns((0.5, 0.7, 0.9)), 64 * KIB: []}
    assert decision.ratios(measured) == {"4096": 0.7}
