# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manual page and completion: what they are to say. Reads only."""

from __future__ import annotations

from typing import Callable, Dict

from ...host import files
from ...host.files import File
from ...host.install import Places
from ..snapshot import Snapshot
from .fingerprint import fingerprint


def wanted(
    make: Callable[[], Dict[str, File]], places: Places, package: Dict[str, str], host: Snapshot
) -> Dict[str, File]:
    """The files, by path; those on the host if the manifest has them with this very library, since they follow from it.

    Making them loads the whole tool, which takes longer than the rest of a run that changes nothing.

    :param make: makes them.
    :param package: the library: text by path below the package.
    :raises SockredirError: something at their paths is not a file, or cannot be read.
    """
    recorded = host.document["files"] if host.document else {}
    if any(recorded.get(f"{places.package}/{name}") != fingerprint(File(text)) for name, text in package.items()):
        return make()
    found = {path: files.read(path) for path in places.documents}
    kept = {path: File(one.text) for path, one in found.items() if one and recorded.get(path) == fingerprint(one)}
    return kept if len(kept) == len(found) else make()
