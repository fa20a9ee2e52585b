# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""links.py DIRECTORY: every link and picture of its pages leads to a file and a section that are there."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, Iterator, List, Set
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page points to, and what can be pointed to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: Set[str] = set()
        self.names: Set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.names.update(found[key] for key in ("id", "name") if found.get(key))
        self.targets.update(found[key] for key in ("href", "src") if found.get(key))


def broken(pages: Dict[Path, Page]) -> Iterator[str]:
    """One line for each link that leads nowhere; those to other sites are not followed."""
    for path, page in sorted(pages.items()):
        for target in sorted(page.targets):
            reason = _wrong(pages, path, target)
            if reason:
                yield f"{path}: {target}: {reason}"


def _wrong(pages: Dict[Path, Page], path: Path, target: str) -> str:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return ""
    to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not to.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    return "no such section" if anchor and to in pages and anchor not in pages[to].names else ""


def main(arguments: List[str]) -> int:
    root = Path(arguments[0]).resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in root.rglob("*.html")}
    found = list(broken(pages))
    print(*found, sep="\n" if found else "", end="\n" if found else "")
    if not pages:
        print(f"{root}: no pages")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
