# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HAProxy before nginx: by the byte, by HTTP requests, and with splice where it can."""

from __future__ import annotations

import contextlib

import pytest
from programs.base import curl, nginx

_TCP, _HTTP, _SPLICE = 8091, 8092, 8093
_CONF = f"""
global
    maxconn 200
defaults
    timeout connect 60s
    timeout client 60s
    timeout server 60s
listen tcp
    mode tcp
    bind 127.0.0.1:{_TCP}
    server origin 127.0.0.1:{nginx.SENDFILE}
listen http
    mode http
    bind 127.0.0.1:{_HTTP}
    http-reuse always
    server origin 127.0.0.1:{nginx.SENDFILE}
listen splice
    mode tcp
    option splice-auto
    bind 127.0.0.1:{_SPLICE}
    server origin 127.0.0.1:{nginx.READ}
"""

# nginx sizes what it reads of a long body by FIONREAD.
pytestmark = pytest.mark.limit("fionread")


@contextlib.contextmanager
def serve(place):
    configuration = place.directory / "haproxy.cfg"
    configuration.write_text(_CONF)
    with nginx.serving(place), place.serving(["haproxy", "-db", "-f", str(configuration)], _SPLICE):
        yield place


def _work(place, port):
    return [
        curl.many(place, port, "small", place.scaled(100, 30)),
        curl.get(place, port, "large"),
        curl.get(place, port, "chunked/large", "--compressed"),
        curl.put(place, port, "upload"),
    ]


@pytest.mark.parametrize("port", [_TCP, _HTTP, _SPLICE], ids=["tcp", "http", "splice"])
def test_proxy(same, port):
    same(lambda place: _work(place, port))
