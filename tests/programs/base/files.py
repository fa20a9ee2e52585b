# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent: bytes that are the same each time."""

from __future__ import annotations

import random
from pathlib import Path

from .place import Place


def content(size: int, seed: int) -> bytes:
    """Bytes that compress to half, the same for the same seed."""
    dice = random.Random(seed)
    return dice.getrandbits(size // 2 * 8).to_bytes(size // 2, "little").hex().encode()


def write_files(place: Place) -> Path:
    """A directory with the files ``small`` and ``large``."""
    files = place.directory / "files"
    files.mkdir()
    (files / "small").write_bytes(content(128, 1))
    (files / "large").write_bytes(content(place.scaled(10 << 20, 1 << 20), 2))
    return files
