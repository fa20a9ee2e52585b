# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role with ``sockredir_demote_below`` as it comes: the host is measured, once."""

from __future__ import annotations

import os


def test_measured_by_the_first_enable_alone(site):
    del site.variables["sockredir_demote_below"]
    ahead = site.enable("--check").ok()
    assert "would be measured" in ahead.output
    site.enable().ok()
    first = site.ask("status")
    assert first["calibration"]["source"] == "measured", first["calibration"]
    manifest = os.readlink(f"{site.variables['sockredir_state_dir']}/current")
    again = site.enable().ok()
    assert not again.changed
    assert site.ask("status") == first
    assert os.readlink(f"{site.variables['sockredir_state_dir']}/current") == manifest


def test_zero_is_a_size(site):
    played = site.enable(variables={"sockredir_demote_below": 0}).ok()
    assert played.changed
    status = site.ask("status")
    assert (status["demote_below"], status["calibration"]) == (0, {"source": "given"})
    site.disable().ok()
    assert not site.traces()
