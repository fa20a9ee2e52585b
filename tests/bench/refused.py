# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a program waits until its connection is refused because its interception proxy is down.

``python3 tests/bench/refused.py [CONNECTIONS]`` as root. One connection after another, from a cgroup of its own, and in
turn with connections that nobody intercepts and that are refused too.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.collection import map_collection

map_collection()

from support.host import sandbox
from support.interception import FAR4, FAR6, interception

#: Nobody listens there.
_PORT = 9


def refused(address: str, port: int) -> float:
    """Seconds that one connection took to be refused."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        begin = time.perf_counter()
        error = client.connect_ex((address, port))
        took = time.perf_counter() - begin
    assert error == errno.ECONNREFUSED, (address, errno.errorcode.get(error, error))
    return took


def shown(name: str, seconds: List[float]) -> str:
    cuts = statistics.quantiles(seconds, n=1000)
    figures = [statistics.median(seconds), cuts[989], max(seconds)]
    return f"{name:<28}" + "".join(f"{1e6 * each:>10.1f}" for each in figures)


def main(count: int) -> None:
    ways = {
        "plain TCP, IPv4": "127.0.0.77",
        "intercepted, IPv4": FAR4,
        "plain TCP, IPv6": "::1",
        "intercepted, IPv6": FAR6,
    }
    taken: Dict[str, List[float]] = {name: [] for name in ways}
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        own = stack.enter_context(sandbox(Path(directory)))
        programs = stack.enter_context(interception(own.cgroup, own.pin_dir))
        programs.write(programs.rule(_PORT))
        stack.enter_context(programs.as_app())
        for _turn in range(count):
            for name, address in ways.items():
                taken[name].append(refused(address, _PORT))
        assert programs.counts(1)["rewritten"] == 2 * count
        assert programs.pending() == 0
    print(f"{'microseconds to refuse':<28}{'median':>10}{'p99':>10}{'most':>10}")
    for name, seconds in taken.items():
        print(shown(name, seconds))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10000)
