# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mosquitto: a message for each line, large ones, and one for many subscribers."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess

import pytest
from programs.base.files import content

_PORT = 8071
_CONF = f"""
listener {_PORT} 127.0.0.1
allow_anonymous true
user root
persistence false
max_queued_messages 0
"""


@contextlib.contextmanager
def serve(place):
    configuration = place.directory / "mosquitto.conf"
    configuration.write_text(_CONF)
    with place.serving(["mosquitto", "-c", str(configuration)], _PORT):
        yield place


def _client(kind, *words):
    return [f"mosquitto_{kind}", "-h", "127.0.0.1", "-p", str(_PORT), "-q", "1", *words]


def _subscriber(name):
    """One whose messages the broker keeps while it is away."""
    return _client("sub", "-c", "-i", name, "-t", "news")


@contextlib.contextmanager
def _listening(place, name, count):
    """A subscriber for so many messages."""
    place.must([*_subscriber(name), "-E"])
    command = place.command([*_subscriber(name), "-C", str(count)])
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _publishing(place, lines):
    """Its input stays open meanwhile: at its end, mosquitto_pub 2.1.2 drops what it has not sent."""
    with subprocess.Popen(place.command(_client("pub", "-t", "news", "-l")), stdin=subprocess.PIPE) as process:
        process.stdin.write(lines)
        process.stdin.flush()
        yield
    assert process.returncode == 0


def _heard(place, process):
    out, _err = process.communicate(timeout=60 * place.patience)
    return process.returncode, len(out), hashlib.sha256(out).hexdigest()


def _lines(place):
    """To two subscribers at a time."""
    count = place.scaled(2000, 200)
    lines = b"".join(b"%d %s\n" % (number, b"x" * (number % 700)) for number in range(count))
    listening = _listening(place, "first", count), _listening(place, "second", count)
    with listening[0] as first, listening[1] as second, _publishing(place, lines):
        return _heard(place, first), _heard(place, second)


def _large(place):
    count = place.scaled(8, 3)
    with _listening(place, "first", count) as subscriber:
        for number in range(count):
            place.must(_client("pub", "-t", "news", "-s"), content(1 << 20, number))
        return _heard(place, subscriber)


@pytest.mark.parametrize("work", [_lines, _large])
def test_messages(same, work):
    same(work)
