# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rsync's daemon: a tree there, changes to it, and back."""

from __future__ import annotations

import contextlib
import hashlib
import shutil

from programs.base.files import content

_PORT = 8131
_CONF = """
port = {port}
address = 127.0.0.1
use chroot = no
uid = root
gid = root
[there]
path = {directory}/there
read only = no
"""


@contextlib.contextmanager
def serve(place):
    configuration = place.directory / "rsyncd.conf"
    configuration.write_text(_CONF.format(port=_PORT, directory=place.directory))
    with place.serving(["rsync", "--daemon", "--no-detach", f"--config={configuration}"], _PORT):
        yield place


def _tree(place):
    """Many small files and some large ones."""
    tree = place.directory / "here"
    tree.mkdir()
    for number in range(place.scaled(200, 40)):
        (tree / f"small{number}").write_bytes(content(2 * number, number))
    for number in range(4):
        (tree / f"large{number}").write_bytes(content(place.scaled(3 << 20, 1 << 19), number))
    return tree


def _sync(place, *words):
    return place.must(["rsync", "-a", "--checksum", "--no-whole-file", "--timeout=60", *words])


def _sums(tree):
    digest = hashlib.sha256()
    for path in sorted(tree.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _work(place):
    url = f"rsync://127.0.0.1:{_PORT}/there/"
    names = [place.directory / name for name in ("there", "back")]
    for directory in names:
        directory.mkdir()
    tree = _tree(place)
    _sync(place, "here/", url)
    with open(tree / "large1", "r+b") as changed:
        changed.seek(1 << 18)
        changed.write(b"changed")
    _sync(place, "here/", url)
    _sync(place, url, "back/")
    found = [_sums(directory) for directory in (tree, *names)]
    for directory in (tree, *names):
        shutil.rmtree(directory)
    return found


def test_trees(same):
    same(_work)
