# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSH: commands, copies, and a forwarded port."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from programs.base import curl, nginx

_PORT, _FORWARDED = 8121, 8122
_SEPARATION = Path("/run/sshd")
_CONF = """
ListenAddress 127.0.0.1:{port}
HostKey {directory}/key
AuthorizedKeysFile {directory}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PrintMotd no
Subsystem sftp internal-sftp
"""
_OPTIONS = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]


@contextlib.contextmanager
def _separation():
    """The directory that sshd wants, and that its service makes where it runs."""
    missing = not _SEPARATION.exists()
    if missing:
        _SEPARATION.mkdir(mode=0o755)
    try:
        yield
    finally:
        if missing:
            _SEPARATION.rmdir()


@contextlib.contextmanager
def serve(place):
    configuration = place.directory / "sshd.conf"
    configuration.write_text(_CONF.format(port=_PORT, directory=place.directory))
    place.must(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"])
    forward = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{_FORWARDED}:127.0.0.1:{nginx.SENDFILE}"]
    with contextlib.ExitStack() as stack:
        for block in (_separation(), nginx.serving(place)):
            stack.enter_context(block)
        stack.enter_context(place.serving(["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)], _PORT))
        stack.enter_context(place.serving(_client(place, "ssh", "-p", *forward), _FORWARDED))
        yield place


def _client(place, name, port_option, *words):
    return [
        name,
        *_OPTIONS,
        "-i",
        "key",
        port_option,
        str(_PORT),
        *words,
        *(["root@127.0.0.1"] if name == "ssh" else []),
    ]


@pytest.mark.limit("fionread")  # nginx, with what is uploaded
def test_forwarded_port(same):
    def work(place):
        return [
            curl.many(place, _FORWARDED, "small", place.scaled(50, 30)),
            curl.get(place, _FORWARDED, "large"),
            curl.put(place, _FORWARDED, "upload"),
        ]

    same(work)


def test_commands(same):
    """A long input with a short answer, and the other way round."""

    def work(place):
        large = (place.directory / "files" / "large").read_bytes()
        summed = place.must([*_client(place, "ssh", "-p"), "sha256sum"], large)
        out = place.must([*_client(place, "ssh", "-p"), f"cat {place.directory}/files/large; exit 0"])
        return summed, hashlib.sha256(out).hexdigest(), place.run([*_client(place, "ssh", "-p"), "exit 7"]).exit

    same(work)


def test_copies(same):
    def work(place):
        files = place.directory / "files"
        place.must(_client(place, "scp", "-P", str(files / "large"), f"root@127.0.0.1:{place.directory}/there"))
        place.must(_client(place, "scp", "-P", f"root@127.0.0.1:{place.directory}/there", "back"))
        return (place.directory / "back").read_bytes() == (files / "large").read_bytes()

    same(work)
