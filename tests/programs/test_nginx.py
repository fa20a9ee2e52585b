# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx as a server of files and as a reverse proxy before one."""

from __future__ import annotations

import contextlib

import pytest
from programs.base import curl, nginx

# nginx sizes what it reads of a long body by FIONREAD.
pytestmark = pytest.mark.limit("fionread")


@contextlib.contextmanager
def serve(place):
    with nginx.serving(place):
        yield place


_PROXIES = pytest.mark.parametrize("port", [nginx.BUFFERED, nginx.UNBUFFERED], ids=["buffered", "unbuffered"])
_SERVERS = pytest.mark.parametrize("port", [nginx.SENDFILE, nginx.READ], ids=["sendfile", "read"])


@_PROXIES
def test_small_bodies(same, port):
    same(lambda place: curl.many(place, port, "small", place.scaled(200, 30)))


@_PROXIES
def test_large_body(same, port):
    same(lambda place: curl.get(place, port, "large"))


@_PROXIES
def test_chunked_body(same, port):
    same(lambda place: curl.get(place, port, "chunked/large", "--compressed"))


@_PROXIES
def test_uploads(same, port):
    """With a length and chunked, then back."""
    same(
        lambda place: [
            curl.put(place, port, "with-length"),
            curl.put(place, port, "in-chunks", "-H", "Transfer-Encoding: chunked"),
        ]
    )


@_SERVERS
def test_files(same, port):
    same(lambda place: [curl.get(place, port, "large"), curl.many(place, port, "small", place.scaled(100, 30))])
