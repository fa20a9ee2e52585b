# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""curl: encrypted, in parts, side by side, and reading slowly."""

from __future__ import annotations

import contextlib

import pytest
from programs.base import curl, nginx

_ENCRYPTED = 8141
# By FIONREAD: nginx.
_READS_LONG_BODIES = pytest.mark.limit("fionread")
_CONF = """
    server {{
        listen {port} ssl;
        ssl_certificate {directory}/certificate;
        ssl_certificate_key {directory}/key;
        dav_methods PUT DELETE;
    }}
"""


@contextlib.contextmanager
def serve(place):
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    place.must(["openssl", "req", *words, "-keyout", "key", "-out", "certificate"])
    with nginx.serving(place, _CONF.format(port=_ENCRYPTED, directory=place.directory)):
        yield place


@_READS_LONG_BODIES
def test_encrypted(same):
    def work(place):
        url = f"https://localhost:{_ENCRYPTED}"
        large = str(place.directory / "files" / "large")
        verified = ["--cacert", "certificate"]
        return [
            curl.call(place, *verified, f"{url}/small?[1-30]", f"{url}/large"),
            curl.call(place, *verified, "-T", large, f"{url}/upload"),
            curl.call(place, *verified, f"{url}/upload"),
            curl.call(place, *verified, "-X", "DELETE", f"{url}/upload"),
        ]

    same(work)


def test_parts(same):
    """As a download that is gone on with has it."""
    ranges = ["0-999", "1000-500000", "500001-"]
    same(lambda place: [curl.get(place, nginx.READ, "large", "-r", part) for part in ranges])


@_READS_LONG_BODIES
def test_side_by_side(same):
    """Each to a file of its own, which the next download brings together."""

    def work(place):
        names = [place.directory / "files" / f"part{number}" for number in range(8)]
        words = [word for name in names for word in ("-o", str(name), curl.url(nginx.UNBUFFERED, "large"))]
        done = curl.call(place, "-Z", "--no-progress-meter", *words)
        found = [curl.get(place, nginx.SENDFILE, name.name) for name in names]
        for name in names:
            name.unlink()
        return done, found

    same(work)


@_READS_LONG_BODIES
def test_slow_reader(same):
    """It stops again and again, since curl reads no faster than it is told."""
    same(lambda place: curl.get(place, nginx.BUFFERED, "large", "--limit-rate", str(place.scaled(20 << 20))))
