# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl learn`` as a process, and what of it can be seen in the kernel."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Set

from support.collection import ROOT

#: To so many tracepoints and functions it is attached, at least: how many of which depends on the kernel.
ATTACHED = 4
SOURCE = ROOT / "bpf" / "learn.bpf.c"
#: Nobody makes it. The machine that the tests run on may be enabled.
NO_STATE_DIR = "/nonexistent/sockredir"
_LINK = re.compile(r"anon_inode:\[?bpf[-_](link|raw-tracepoint)")
_START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.tool.main import main
sys.exit(main())
"""


def tool(*words: str) -> List[str]:
    """The command line of the tool of this checkout, as on a host where nothing is enabled."""
    return [sys.executable, "-c", _START, str(ROOT / "tests"), "--state-dir", NO_STATE_DIR, *words]


class Learn:
    """A run of learn.

    :param words: after the verb.
    """

    def __init__(self, *words: str) -> None:
        command = tool("learn", *words)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def links(self) -> int:
        """How many attachments it holds."""
        return sum(bool(_LINK.match(target)) for target in self._targets().values())

    def ids(self) -> Dict[str, Set[int]]:
        """The ids of the programs and maps that it holds, as ``program`` and ``map``."""
        found: Dict[str, Set[int]] = {"program": set(), "map": set()}
        for number in self._targets():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{self.process.pid}/fdinfo/{number}").read_text(encoding="ascii")
                for kind, value in re.findall(r"^(prog|map)_id:\s*(\d+)$", text, re.MULTILINE):
                    found["program" if kind == "prog" else "map"].add(int(value))
        return found

    def _targets(self) -> Dict[str, str]:
        targets = {}
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{self.process.pid}/fd"):
                with contextlib.suppress(OSError):
                    targets[number] = os.readlink(f"/proc/{self.process.pid}/fd/{number}")
        return targets

    def wait_for_links(self, count: int) -> None:
        """Until it holds so many attachments."""
        self.wait_until(lambda: self.links() >= count)

    def wait_until_it_watches(self) -> None:
        """Until all programs that it has loaded are attached."""
        self.wait_until(lambda: 0 < len(self.ids()["program"]) == self.links())

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Until something is so; AssertionError if it has ended before."""
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, "learn does not begin"
            time.sleep(0.01)

    def end(self) -> str:
        """Ask it to end; what it printed."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=120)
        assert (self.process.returncode, err) == (0, ""), err
        return out

    def kill(self) -> None:
        """At once, whatever it is doing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def learning(*words: str) -> Iterator[Learn]:
    """A run that watches when the block begins, and is over after it in any case."""
    run = Learn(*words)
    try:
        run.wait_until_it_watches()
        yield run
    finally:
        run.kill()


def by_port(text: str) -> Dict[int, Dict[str, Any]]:
    """The entries of a report, by port."""
    return {entry["port"]: entry for entry in json.loads(text)["ports"]}
