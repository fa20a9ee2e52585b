# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process in the background that is found again, and ended, by its pid file: that one and no other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

# The pid is in the file before the program runs: at no instant can a kill leave a process that nobody knows of.
LAUNCH = 'echo $$ >"$0" && exec "$@"'
# Nobody waits longer for a test: what its run forgot ends by itself.
LIFETIME_S = 4 * 3600
END_LIMIT_S = 15


@dataclass(frozen=True)
class Background:
    """A program in a session of its own; the pid file names the `timeout` that it runs under."""

    pid_file: Path

    def spawn(self, command: List[str], log: Path, tied_to_us: bool) -> subprocess.Popen:
        """Starts the command with its output in `log`; one that is tied to us ends when we do, however."""
        tie = ["setpriv", "--pdeathsig", "TERM"] if tied_to_us else []
        limit = ["timeout", "--foreground", "--kill-after=10", str(LIFETIME_S)]
        launch = [*tie, "sh", "-c", LAUNCH, str(self.pid_file), *limit, *command]
        with open(log, "wb") as output:
            return subprocess.Popen(
                launch, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def pid(self) -> Optional[int]:
        """Its process id while it runs; None too where another process has got the number since."""
        try:
            pid = int(self.pid_file.read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # All that we start has a file of this directory on its command line.
        return pid if os.fsencode(self.pid_file.parent) + b"/" in command else None

    def end(self) -> bool:
        """Ends it, by force where it must be; whether it is gone."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            pid = self.pid()
            if pid is None:
                return True
            with contextlib.suppress(ProcessLookupError):
                # It leads its session: the group is `timeout` and what runs under it.
                os.killpg(pid, sign)
            limit = time.monotonic() + END_LIMIT_S
            while self.pid() is not None and time.monotonic() < limit:
                time.sleep(0.05)
        return self.pid() is None
