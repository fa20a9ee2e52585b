# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apache httpd: files, with sendfile and without, uploads, and a reverse proxy before itself."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from programs.base import curl
from programs.base.files import write_files

_SENDFILE, _READ, _PROXY = 8101, 8102, 8103
_MODULES = ["alias", "authz_core", "dav", "dav_fs", "deflate", "filter", "mpm_event", "proxy", "proxy_http"]
_CONF = """
{modules}
ServerName 127.0.0.1
User www-data
Group www-data
PidFile {directory}/apache.pid
DefaultRuntimeDir {directory}
ErrorLog {directory}/apache.error.log
DavLockDB {directory}/files/.lock
DocumentRoot {directory}/files
ServerLimit 2
StartServers 2
EnableMMAP Off
Alias /chunked {directory}/files
<Directory {directory}/files>
    Require all granted
    Dav On
</Directory>
<Location /chunked>
    SetOutputFilter DEFLATE
</Location>
Listen 127.0.0.1:{sendfile}
Listen 127.0.0.1:{read}
Listen 127.0.0.1:{proxy}
<VirtualHost 127.0.0.1:{sendfile}>
    EnableSendfile On
</VirtualHost>
<VirtualHost 127.0.0.1:{read}>
    EnableSendfile Off
</VirtualHost>
<VirtualHost 127.0.0.1:{proxy}>
    ProxyPass / http://127.0.0.1:{read}/
</VirtualHost>
"""


@contextlib.contextmanager
def serve(place):
    shutil.chown(write_files(place), "www-data")
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _MODULES)
    ports = {"sendfile": _SENDFILE, "read": _READ, "proxy": _PROXY}
    configuration = place.directory / "apache.conf"
    configuration.write_text(_CONF.format(modules=modules, directory=place.directory, **ports))
    with place.serving(["apache2", "-DFOREGROUND", "-f", str(configuration)], _PROXY):
        yield place


def _work(place, port):
    return [
        curl.many(place, port, "small", place.scaled(100, 30)),
        curl.get(place, port, "large"),
        curl.get(place, port, "chunked/large", "--compressed"),
        curl.put(place, port, "with-length"),
        curl.put(place, port, "in-chunks", "-H", "Transfer-Encoding: chunked"),
    ]


@pytest.mark.parametrize("port", [_SENDFILE, _READ, _PROXY], ids=["sendfile", "read", "proxy"])
def test_bodies(same, port):
    same(lambda place: _work(place, port))
