# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KVM is taken only if a trial boot on it works, and in time."""

from __future__ import annotations

import json

import pytest
from vmtool import accel
from vmtool.accel import TRIAL_EXIT_CODE, Trial
from vmtool.errors import VmError

EMULATED = Trial(TRIAL_EXIT_CODE, 0.2)


@pytest.mark.parametrize(
    ("kvm", "tcg", "accelerator", "reason"),
    [
        (Trial(TRIAL_EXIT_CODE, 0.3), EMULATED, "kvm", "0.3 s"),
        (Trial(TRIAL_EXIT_CODE, 1.1), EMULATED, "kvm", "1.1 s"),
        (Trial(TRIAL_EXIT_CODE, 1.3), EMULATED, "tcg", "slower"),
        (Trial(TRIAL_EXIT_CODE, 3.0), Trial(TRIAL_EXIT_CODE, 2.5), "kvm", "3.0 s"),
        (Trial(None, 10.0), EMULATED, "tcg", "hangs"),
        (Trial(-6, 0.1), EMULATED, "tcg", "exit code -6"),
        (Trial(0, 0.1), EMULATED, "tcg", "exit code 0"),
        (Trial(TRIAL_EXIT_CODE, 0.3), Trial(1, 0.1), "kvm", "0.3 s"),
    ],
)
def test_judgement(kvm, tcg, accelerator, reason):
    decision = accel.judge(kvm, tcg)
    assert decision.accelerator == accelerator
    assert reason in decision.reason


def never(accelerator):
    raise AssertionError(f"no trial of {accelerator} is needed")


def test_no_device_needs_no_trial(tmp_path):
    decision = accel.decide(tmp_path, {}, str(tmp_path / "kvm"), never)
    assert (decision.accelerator, decision.reason) == ("tcg", f"there is no {tmp_path / 'kvm'}")


@pytest.mark.parametrize("wanted", ["kvm", "tcg"])
def test_the_user_decides(tmp_path, wanted):
    assert accel.decide(tmp_path, {"SOCKREDIR_VM_ACCEL": wanted}, "/", never).accelerator == wanted


def test_a_word_that_is_none(tmp_path):
    with pytest.raises(VmError, match="write kvm or tcg"):
        accel.decide(tmp_path, {"SOCKREDIR_VM_ACCEL": "xen"}, "/", never)


def test_the_outcome_is_remembered_until_the_host_changes(tmp_path):
    device = tmp_path / "kvm"
    device.touch()
    trials = []

    def trial(accelerator):
        trials.append(accelerator)
        return Trial(None, 10.0) if accelerator == "kvm" else EMULATED

    first = accel.decide(tmp_path, {}, str(device), trial)
    assert accel.decide(tmp_path, {}, str(device), trial) == first
    assert trials == ["kvm", "tcg"]

    kept = json.loads((tmp_path / "accelerator.json").read_text())
    (tmp_path / "accelerator.json").write_text(json.dumps({**kept, "valid_for": "before the reboot"}))
    accel.decide(tmp_path, {}, str(device), trial)
    assert trials == ["kvm", "tcg"] * 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"valid_for": 1}'])
def test_a_damaged_memory_is_no_obstacle(tmp_path, text):
    (tmp_path / "accelerator.json").write_text(text)
    device = tmp_path / "kvm"
    device.touch()
    assert accel.decide(tmp_path, {}, str(device), lambda accelerator: EMULATED).accelerator == "kvm"


def test_the_boot_sector_is_one():
    assert len(accel.BOOT_SECTOR) == 512
    assert accel.BOOT_SECTOR[-2:] == b"\x55\xaa"
