# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries for the journal, read from a real datagram socket by a reader that goes by the protocol's description."""

import socket
import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.change import journal
from ansible_collections.ebpf.sockredir.plugins.module_utils.change.step import Step
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from support.journal import Journal

STEPS = [
    Step("sockredir pin", "/b/a", None, {"id": 1}, kind="pin_missing"),
    Step("pin", "/b/c", None, {"id": 2}, kind="pin_missing"),
    Step("part reload", "systemd", "a\nb", "c"),
]


@pytest.fixture
def read(tmp_path, monkeypatch):
    with Journal(tmp_path / "socket") as reader:
        monkeypatch.setattr(journal, "SOCKET", str(reader.path))
        yield reader


def test_a_change_is_told_with_its_steps(read):
    with journal.change("restore", mode="enforce") as done:
        done(STEPS)
    assert read.entries() == [
        {
            "MESSAGE": "restore: pin_missing (2), reload",
            "PRIORITY": "5",
            "SYSLOG_IDENTIFIER": "sockredir",
            "SOCKREDIR_ACTION": "restore",
            "SOCKREDIR_MODE": "enforce",
            "SOCKREDIR_RESULT": "done",
            "SOCKREDIR_KINDS": "pin_missing reload",
            "SOCKREDIR_STEPS": 'sockredir pin /b/a: null -> {"id": 1}\n'
            'pin /b/c: null -> {"id": 2}\npart reload systemd: a b -> c',
        }
    ]


def test_a_failure_is_told_and_raised(read):
    with pytest.raises(SockredirError), journal.change("mode"):
        raise SockredirError("no map", "run: x", "log")
    (entry,) = read.entries()
    assert (entry["MESSAGE"], entry["PRIORITY"]) == ("mode failed: no map; run: x", "3")
    assert entry["SOCKREDIR_RESULT"] == "failed"


def test_what_changed_nothing_is_not_told(read):
    with journal.change("enable") as done:
        done([])
    with journal.change("enable", True) as done:
        done(STEPS)
    with pytest.raises(SockredirError), journal.change("enable", True):
        raise SockredirError("no")
    assert read.entries() == []


def test_an_entry_of_very_many_steps_fits(read):
    with journal.change("enable") as done:
        done([Step("file", "/f", "x" * 5000, "\udcff\x00" * 5000)] * 3000)
    (entry,) = read.entries()
    assert entry["MESSAGE"] == "enable: file (3000)"
    assert entry["SOCKREDIR_STEPS"].startswith("file /f: xxx")


def test_a_value_of_several_lines_has_its_length_before_it():
    assert journal.encode({"A": "b=c", "D": "e\nf"}) == b"A=b=c\nD\n" + struct.pack("<Q", 3) + b"e\nf\n"


def test_without_a_journal_nothing_is_told_and_nothing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "none"))
    assert not journal.send("m", 5, {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(tmp_path / "none"))
    assert not journal.send("m", 5, {})


def test_a_journal_that_does_not_read_keeps_no_change_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "full"))
    monkeypatch.setattr(journal, "_TIMEOUT_SECONDS", 0.01)
    with Journal(tmp_path / "full") as full:
        taken = 0
        while journal.send("m" * 50_000, 5, {}) and taken < 10_000:
            taken += 1
        assert 0 < taken < 10_000
        assert len(full.entries()) == taken
