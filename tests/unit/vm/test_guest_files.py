# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This host's apt settings reach the guest, seen from inside."""

from __future__ import annotations

import io
import tarfile

import pytest
from vmtool import guest_files, image


@pytest.mark.parametrize(
    ("apt_config", "environ", "expected"),
    [
        ("", {}, ""),
        ('Acquire::http::Proxy "http://proxy:3142";\n', {}, 'Acquire::http::Proxy "http://proxy:3142";\n'),
        ("", {"https_proxy": "http://proxy:8"}, 'Acquire::https::Proxy "http://proxy:8";\n'),
        (
            'Acquire::http::Proxy "http://localhost:3142/";\n',
            {"http_proxy": "http://other:1"},
            'Acquire::http::Proxy "http://10.0.2.2:3142/";\n',
        ),
        ("", {"http_proxy": "http://me:pw@127.0.0.1:8"}, 'Acquire::http::Proxy "http://me:pw@10.0.2.2:8";\n'),
        ("", {"http_proxy": "http://127.0.0.1.example:8"}, 'Acquire::http::Proxy "http://127.0.0.1.example:8";\n'),
        ('Acquire::http::Proxy::example.org "DIRECT";\n', {}, ""),
    ],
)
def test_proxies(apt_config, environ, expected):
    assert guest_files.apt_proxies(apt_config, environ) == expected


def test_modes_in_the_archive():
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        guest_files.add_to_tar(
            tar, {"/root/.ssh/authorized_keys": "key", "/etc/hook": "#!/bin/sh\n", "/etc/plain": "x"}
        )
    raw.seek(0)
    with tarfile.open(fileobj=raw) as tar:
        modes = {entry.name: entry.mode for entry in tar if entry.isfile()}
    assert modes == {"root/.ssh/authorized_keys": 0o600, "etc/hook": 0o755, "etc/plain": 0o644}


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("I: running\nErr:1 Could not resolve 'mirror'\nE: apt-get update failed", "no package mirror answers"),
        ("W: Failed to fetch x  Connection refused\nE: apt-get update failed", "no package mirror answers"),
        ("dpkg: error: No space left on device\nE: run_chroot failed", "no space left"),
        ("E: Unable to locate package clangg\nE: more", "Unable to locate package clangg"),
        ("something odd", "something odd"),
        ("", "mmdebstrap said nothing"),
    ],
)
def test_one_line_of_a_failed_build(log, said):
    line = str(image.bootstrap_failure("bookworm", log))
    assert said in line
    assert line.startswith("cannot build bookworm: ")
    assert "\n" not in line
