# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""sockredirctl top on a pseudo-terminal and without one, beside real traffic."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

_TRAFFIC = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
print(listener.getsockname()[1], flush=True)
while True:
    client.sendall(b"q" * 1000)
    server.recv(1000, socket.MSG_WAITALL)
    server.sendall(b"a" * 1000)
    client.recv(1000, socket.MSG_WAITALL)
    time.sleep(0.001)
"""
#: Of a terminal without capabilities to move about on the screen.
_DUMB = {**os.environ, "TERM": "dumb"}
_SCREEN = {**os.environ, "TERM": "xterm"}
_LEAVES = rb"\x1b\[\?1049l"


@pytest.fixture(scope="module")
def traffic(enabled):
    """The port of a connection that talks all the time."""
    command = [str(enabled.prefix / "sbin" / "sockredirctl"), "exec", "python3", "-c", _TRAFFIC]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=30)


class Terminal:
    """A pseudo-terminal with ``top`` on it."""

    def __init__(self, enabled, *options, environment=_SCREEN):
        self.controller, end = pty.openpty()
        self.resize(30, 200)
        self.before = termios.tcgetattr(end)
        command = [str(enabled.prefix / "sbin" / "sockredirctl"), "top", "-d", "0.3", *options]
        self.process = subprocess.Popen(
            command, stdin=end, stdout=end, stderr=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.end = end
        self.seen = b""

    def resize(self, lines, columns):
        fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, pattern):
        """What came until a pattern did; from there on is for the next read."""
        deadline = time.monotonic() + 60
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.controller], [], [], 1)[0]:
                self.seen += os.read(self.controller, 65536)
        shown, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return shown

    def press(self, key):
        os.write(self.controller, key)

    def close(self):
        """The exit code and standard error."""
        try:
            self.read_until(_LEAVES)
            _out, err = self.process.communicate(timeout=60)
            assert termios.tcgetattr(self.end) == self.before
            return self.process.returncode, err
        finally:
            self.process.kill()
            os.close(self.end)
            os.close(self.controller)


def test_on_a_terminal_it_shows_the_port_follows_keys_and_leaves_all_as_it_was(enabled, traffic):
    terminal = Terminal(enabled)
    terminal.read_until(rb"mode enforce, 1 connections")
    terminal.read_until(rb"%d +accelerate" % traffic)
    terminal.read_until(rb"redirected: [1-9]\d* messages/s")
    terminal.press(b"p")
    terminal.press(b"q")
    assert terminal.close() == (0, b"")


def test_it_follows_the_size_of_the_terminal(enabled, traffic):
    terminal = Terminal(enabled)
    terminal.read_until(rb"q quit")
    terminal.resize(12, 60)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.read_until(rb"\x1b\[12(;1H|d)")  # the keys are in the last line
    terminal.press(b"q")
    assert terminal.close() == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_with_the_terminal_as_it_was(enabled, traffic, number):
    terminal = Terminal(enabled)
    terminal.read_until(rb"%d +accelerate" % traffic)
    os.kill(terminal.process.pid, number)
    assert terminal.close() == (0, b"")


def test_so_many_views_on_a_terminal(enabled, traffic):
    assert Terminal(enabled, "-n", "2").close() == (0, b"")


def test_an_error_while_it_runs_is_said_on_a_terminal_as_it_was(enabled, traffic):
    terminal = Terminal(enabled)
    terminal.read_until(rb"%d +accelerate" % traffic)
    pin = enabled.sandbox.pin_dir / "ports"
    away = pin.rename(pin.with_name("away"))
    try:
        code, err = terminal.close()
    finally:
        away.rename(pin)
    assert code == 3
    assert err.startswith(b"sockredirctl: there is no ports map in ")


def rates(text, port):
    return [int(line.split()[4]) for line in text.splitlines() if line.split()[:1] == [str(port)]]


def test_without_a_terminal_it_is_text(enabled, traffic):
    done = enabled.ctl("top", "-n", "2", "--interval", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    found = rates(done.stdout, traffic)
    assert len(found) == 2
    assert all(rate > 0 for rate in found)


def test_on_a_dumb_terminal_it_is_text(enabled, traffic):
    terminal = Terminal(enabled, "-n", "1", environment=_DUMB)
    shown = terminal.read_until(rb"%d +accelerate[^\n]*\n" % traffic)
    assert b"\x1b" not in shown
    assert terminal.process.wait(timeout=60) == 0
    os.close(terminal.end)
    os.close(terminal.controller)


def test_a_signal_ends_the_text(enabled, traffic):
    command = [str(enabled.prefix / "sbin" / "sockredirctl"), "top", "-d", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("mode enforce")
    process.terminate()
    _out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
