# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl trace`` while it runs, and what the programs of interception write for it."""

from __future__ import annotations

import contextlib
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept, intercept_live, intercept_record
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf, ring

_A_MINUTE = 60 * 10**9


class Trace:
    """A running trace; it has begun once the programs write events."""

    def __init__(self, managed, *options: str) -> None:
        command = [str(managed.prefix / "sbin" / "sockredirctl"), "trace", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def rings(self) -> int:
        """How many it reads."""
        with open(f"/proc/{self.process.pid}/maps", encoding="utf-8") as maps:
            return maps.read().count("bpf-map") // 2

    def end(self, number: Optional[int] = signal.SIGINT) -> Tuple[int, List[str], str]:
        """Its exit code, lines, and what it said.

        :param number: the signal that ends it; None: it ends by itself.
        """
        if number:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out.splitlines(), err


def traced_until(pin_dir: Path) -> int:
    """The moment until which the programs of interception write events."""
    with libbpf.Map.open_pin(str(pin_dir / "intercept_trace")) as trace:
        return struct.unpack("=Q", trace.lookup(struct.pack("=I", intercept_record.UNTIL)))[0]


class Records:
    """The ring of interception, from now on."""

    def __init__(self, pin_dir: Path, reader: ring.Reader) -> None:
        self._pin_dir, self._reader = str(pin_dir), reader

    def ask(self, moment: Optional[int] = None) -> None:
        """Have events written: until a moment, or for a minute."""
        intercept_live.trace_until(self._pin_dir, time.monotonic_ns() + _A_MINUTE if moment is None else moment)

    def untold(self) -> int:
        return intercept_live.untold(self._pin_dir)

    def read(self) -> List[intercept_record.Record]:
        return [intercept_record.decode(raw) for raw in self._reader.read().records]

    def events(self) -> List[Tuple[str, Optional[End], End, End]]:
        """What has been written since: event, client (None: without an address), where it goes, where it wanted to."""
        return [
            (intercept.Event(each.event).label, each.client if each.client.port else None, each.to, each.asked)
            for each in self.read()
        ]


@contextlib.contextmanager
def records(pin_dir: Path) -> Iterator[Records]:
    with libbpf.Map.open_pin(str(pin_dir / intercept_live.RING)) as found:
        reader = ring.Reader(found.fileno(), found.info.max_entries)
    with reader:
        yield Records(pin_dir, reader)
