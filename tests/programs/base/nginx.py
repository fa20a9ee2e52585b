# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx: files by sendfile and by read, and two reverse proxies before them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Iterator

from .files import write_files
from .place import Place

SENDFILE, READ, BUFFERED, UNBUFFERED = 8001, 8002, 8003, 8004
_PACKAGED = "/usr/sbin/nginx"

_CONF = """
daemon off;
user root;
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/nginx.error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    gzip_types *;
    root {directory}/files;
    upstream origin {{ server 127.0.0.1:{sendfile}; keepalive 4; }}
    {servers}
}}
"""

_FILES = """
    server {{
        listen {port};
        sendfile {sendfile};
        dav_methods PUT DELETE;
        location /chunked/ {{ alias {directory}/files/; gzip on; }}
    }}
"""

_PROXY = """
    server {{
        listen {port};
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering {buffering};
            proxy_request_buffering {buffering};
        }}
    }}
"""


def _configuration(directory: Path, more: str) -> str:
    servers = [
        _FILES.format(port=SENDFILE, sendfile="on", directory=directory),
        _FILES.format(port=READ, sendfile="off", directory=directory),
        _PROXY.format(port=BUFFERED, buffering="on"),
        _PROXY.format(port=UNBUFFERED, buffering="off"),
        more,
    ]
    return _CONF.format(directory=directory, sendfile=SENDFILE, servers="".join(servers))


@contextlib.contextmanager
def serving(place: Place, more: str = "") -> Iterator[None]:
    """All four servers for the length of the block, and one more whose configuration is given."""
    write_files(place)
    configuration = place.directory / "nginx.conf"
    configuration.write_text(_configuration(place.directory, more))
    with place.serving([_PACKAGED, "-e", "stderr", "-c", str(configuration)], UNBUFFERED):
        yield
