# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a piece of work is: who serves, who asks, and what is measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Callable, ContextManager, Dict, List, NamedTuple, Optional

from .names import HIGHER, LOWER, TCP, UNIX
from .subjects import Subject

SIZES = {64: "64 B", 128: "128 B", 1024: "1 KiB", 4096: "4 KiB", 16384: "16 KiB", 24576: "24 KiB", 32768: "32 KiB"}
SIZES.update(
    {49152: "48 KiB", 65536: "64 KiB", 131072: "128 KiB", 262144: "256 KiB", 1000000: "1 MB", 1048576: "1 MiB"}
)
LOCAL, VETH, PROXIED = "local", "veth", "proxied"
VETH_NAME, VETH_HERE, VETH_THERE = "sockredir-bench", "198.18.78.1", "198.18.78.2"
_MORE_PLACES = ("/usr/sbin", "/usr/local/sbin")


class Metric(NamedTuple):
    """One figure of a work: ``key`` in what the work returns."""

    key: str
    name: str
    better: str
    unit: str


THROUGHPUT = Metric("mbytes_per_second", "throughput", HIGHER, "MB/s")
FED = Metric("fed_mbytes_per_second", "stream", HIGHER, "MB/s")
RATE = Metric("rate", "rate", HIGHER, "/s")
P50 = Metric("p50_us", "p50", LOWER, "us")
P99 = Metric("p99_us", "p99", LOWER, "us")


class Work(NamedTuple):
    """Something to measure. ``serve`` is entered once for each subject, ``run`` called again and again."""

    id: str
    title: str
    metrics: List[Metric]
    subjects: List[str]
    serve: Callable[[Subject, Path], ContextManager[None]]
    run: Callable[[Subject, Path, float], Dict[str, float]]
    group: str
    place: str = LOCAL
    base: str = TCP
    """The subject that the others are compared with."""
    programs: Dict[str, Optional[str]] = {}
    """Programs that must be installed, and where they are: None where one is not."""

    def missing(self) -> List[str]:
        return [name for name, path in self.programs.items() if not path]


def installed(name: str) -> Optional[str]:
    """Where a program is. Servers lie where users do not look."""
    return shutil.which(name) or shutil.which(name, path=":".join(_MORE_PLACES))


def of_postgresql(name: str) -> Optional[str]:
    """Debian keeps each version's programs in a directory of its own: the newest one's, or that of PATH."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / name).exists()]
    newest = max(versions, key=lambda path: float(path.parent.name), default=None)
    return str(newest / name) if newest else installed(name)


def port(subject: Subject, offset: int = 0) -> int:
    return 21500 + 10 * subject.number + offset


def endpoint(subject: Subject, place: str) -> str:
    """Where sockbench serves."""
    if subject.name == UNIX:
        return f"unix:{subject.directory / 'bench.sock'}"
    address = VETH_THERE if place == VETH else "127.0.0.1"
    return f"tcp:{address}:{port(subject)}"


def whole(seconds: float) -> str:
    """For programs that take no fraction of a second."""
    return str(max(1, round(seconds)))
