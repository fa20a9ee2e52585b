# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""redis: many clients, mass insertion, and a subscriber that does not read while others ask."""

from __future__ import annotations

import contextlib
import hashlib

import pytest

_PORT = 8031
_LIMIT = "pubsub 0 0 0"  # never throw a slow subscriber out


@contextlib.contextmanager
def serve(place):
    options = {"port": _PORT, "save": "", "enable-debug-command": "yes", "client-output-buffer-limit": _LIMIT}
    words = [word for name, value in options.items() for word in (f"--{name}", *str(value).split(" "))]
    with place.serving(["redis-server", *words, "--dir", str(place.directory)], _PORT):
        yield place


def _cli(place, *words, give=b""):
    return place.must(["redis-cli", "-p", str(_PORT), *words], give)


def _benchmark(place):
    words = ["-c", "20", "-n", str(place.scaled(3000, 400)), "-d", "200", "-q", "-t", "set,lpush,lrange_100"]
    done = place.run(["redis-benchmark", "-p", str(_PORT), *words])
    found = done.exit, done.err, _cli(place, "LLEN", "mylist"), _cli(place, "DEBUG", "DIGEST")
    _cli(place, "FLUSHALL")
    return found


def _insert(place):
    """Two thousand values at once, then all of them back."""
    count = place.scaled(2000, 300)
    value = "x" * 3000
    asked = _cli(
        place, "--pipe", give="".join(f"SET key{number} {number}{value}\r\n" for number in range(count)).encode()
    )
    found = asked, _cli(place, "DEBUG", "DIGEST"), _cli(place, "MGET", *(f"key{number}" for number in range(count)))
    _cli(place, "FLUSHALL")
    return found[:2], hashlib.sha256(found[2]).hexdigest()


@pytest.mark.parametrize("work", [_benchmark, _insert])
def test_requests(same, work):
    same(work)


def _ask(connection, *words):
    """One command as redis wants it."""
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    connection.sendall(b"".join(parts))


def _slow_subscriber(place):
    """What the subscriber gets after all, and how many pings were answered while it did not read."""
    with place.connect(_PORT) as subscriber, place.connect(_PORT) as publisher, place.connect(_PORT) as other:
        _ask(subscriber, b"SUBSCRIBE", b"news")
        with subscriber.makefile("rb") as news:
            head = [news.readline() for _line in range(6)]
            pongs = _publish(publisher, other, place.scaled(200, 40))
            return head, pongs, _read(news, place.scaled(200, 40))


def _publish(publisher, other, count):
    pongs = 0
    with publisher.makefile("rb") as told, other.makefile("rb") as answers:
        for number in range(count):
            _ask(publisher, b"PUBLISH", b"news", b"%06d" % number * 11000)
            assert told.readline() == b":1\r\n"
            _ask(other, b"PING")
            pongs += answers.readline() == b"+PONG\r\n"
    return pongs


def _read(news, count):
    """Checksum of so many messages."""
    digest = hashlib.sha256()
    for _message in range(count):
        digest.update(b"".join(news.readline() for _line in range(7)))
    return digest.hexdigest()


def test_slow_subscriber(same):
    same(_slow_subscriber)
