# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trials of how a socket in a map behaves, on the running kernel."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import queues
from support.collection import ROOT

CLONE_NEWNET = 0x40000000


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def test_this_kernel_keeps_one_queue_and_counts_it():
    before = descriptors()
    assert queues.one_queue() == queues.OneQueue(ok=True, unread=0, woken=True)
    assert queues.fionread(with_verdict=True) == queues.Counted(ok=True, tcp=100, redirected=100, both=200)
    assert descriptors() == before


def test_what_is_counted_without_a_verdict_is_judged_by_the_figures():
    """Kernels differ in it: 6.18 leaves out what came by TCP, 6.1 what was redirected, 6.12.118 nothing."""
    found = queues.fionread(with_verdict=False)
    assert found.why == ""
    assert found.ok is ((found.tcp, found.redirected, found.both) == (100, 100, 200))
    assert found.both in (100, 200)


def in_new_netns(work):
    """What ``work`` returns in a thread whose network namespace is new: its loopback device is down."""
    found = []

    def run():
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        found.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return found[0]


def test_without_loopback_it_is_unknown_and_says_why():
    before = descriptors()
    for found in in_new_netns(lambda: (queues.one_queue(), queues.fionread(True))):
        assert found.ok is None
        assert found.why.startswith("a connection on 127.0.0.1 failed: ")
        assert "\n" not in found.why
    assert descriptors() == before


_AS_NOBODY = """
import os, sys
sys.path.insert(0, "tests")
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, queues
libbpf.library()
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(queues.one_queue().ok, queues.fionread(False).ok, "EPERM" in queues.one_queue().why)
"""


def test_without_root_it_is_unknown():
    done = subprocess.run([sys.executable, "-c", _AS_NOBODY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "None", "True"]


@pytest.mark.parametrize("trial", [queues.one_queue, lambda: queues.fionread(True)])
def test_a_refused_socket_is_told_from_a_fault(trial, monkeypatch):
    """As where the process may not bind to a device."""

    def refused(*_arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refused)
    found = trial()
    assert found.ok is None
    assert "Operation not permitted" in found.why
