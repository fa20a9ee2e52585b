# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What curl brings and takes, told by checksums."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import List, Tuple

from .place import Place

Result = Tuple[int, str, int, str]
_LONGEST = 30


def url(port: int, path: str) -> str:
    """Where a server of the place has something."""
    return f"http://127.0.0.1:{port}/{path}"


def call(place: Place, *arguments: str) -> Result:
    """(exit code, statuses and what curl says, bytes, their checksum)."""
    longest = str(int(_LONGEST * place.patience))
    done = place.run(
        ["curl", "-sS", "--max-time", longest, "-w", "%{stderr}%{http_code} ", *arguments], wait=2 * _LONGEST
    )
    return done.exit, _counted(done.err.decode().split()), len(done.out), hashlib.sha256(done.out).hexdigest()


def _counted(words: List[str]) -> str:
    """Words, with how often each came."""
    return " ".join(f"{word} x {count}" if count > 1 else word for word, count in Counter(words).items())


def get(place: Place, port: int, path: str, *options: str) -> Result:
    """Download."""
    return call(place, *options, url(port, path))


def many(place: Place, port: int, path: str, times: int) -> Result:
    """Download again and again over one connection."""
    return call(place, url(port, f"{path}?[1-{times}]"))


def put(place: Place, port: int, path: str, *options: str) -> Tuple[Result, ...]:
    """Upload the file ``large``, download it again and delete it."""
    large = str(place.directory / "files" / "large")
    there = url(port, path)
    return call(place, "-T", large, *options, there), get(place, port, path), call(place, "-X", "DELETE", there)
