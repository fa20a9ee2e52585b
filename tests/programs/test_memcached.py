# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""memcached: values of all sizes, one by one and many at once."""

from __future__ import annotations

import contextlib
import hashlib

from programs.base.files import content

_PORT = 8061
_SIZES = [1, 100, 1400, 9000, 70_000, 500_000]


@contextlib.contextmanager
def serve(place):
    words = ["-u", "root", "-l", "127.0.0.1", "-p", str(_PORT), "-m", "256"]
    with place.serving(["memcached", *words], _PORT):
        yield place


def _set(connection, answers, key, value):
    connection.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
    return answers.readline()


def _get(connection, answers, keys):
    """Keys, sizes and values of one answer, as a checksum."""
    connection.sendall(b"get " + b" ".join(keys) + b"\r\n")
    digest = hashlib.sha256()
    for line in iter(answers.readline, b"END\r\n"):
        digest.update(line + answers.read(int(line.split()[3]) + 2))
    return digest.hexdigest()


def _values(place):
    """Each set and read alone, then all of them at once; two clients."""
    data = content(max(_SIZES), 4)
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(place.connect(_PORT)) for _client in range(2))
        stored, answers = (stack.enter_context(client.makefile("rb")) for client in (first, second))
        told = [_round(first, stored, second, answers, data, turn) for turn in range(place.scaled(30, 8))]
        keys = [b"key%d" % size for size in _SIZES]
        return told, _get(second, answers, keys), _get(first, stored, keys)


def _round(first, stored, second, answers, data, turn):
    told = []
    for size in _SIZES:
        key, value = b"key%d" % size, data[-size:][turn:] or b"-"
        told += [_set(first, stored, key, value), _get(second, answers, [key])]
    return told


def test_values(same):
    same(_values)
