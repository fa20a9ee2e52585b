# SPDX-FileCopyrightText: sockredir contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what ``./run enable`` has done to this machine: plain TCP against redirection, and what to do next.

usage: show.py [PATH OF SOCKREDIRCTL]
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

_SECONDS = "3"
_ROUNDS = 2
_STREAM = 64 << 10
_NEVER = 1 << 30
_LO = "/sys/class/net/lo/statistics/tx_bytes"


class Measured(NamedTuple):
    """Sums over the rounds."""

    bytes: int
    seconds: float
    lo_bytes: int

    @property
    def rate(self) -> float:
        """Bits per second."""
        return 8 * self.bytes / self.seconds


def main() -> int:
    tool = sys.argv[1] if len(sys.argv) > 1 else "/usr/local/sbin/sockredirctl"
    status = json.loads(_output([tool, "status", "--json"]))
    print("\n--- what this host does now")
    print(_output([tool, "status"]).rstrip())
    print("\n--- proof: bytes through the accelerated cgroup")
    print(_output([tool, "verify"]).rstrip())
    below, calibration = status.get("demote_below"), status.get("calibration") or {}
    print("\n--- what is faster here")
    print("\n".join(findings(below, calibration)))
    if status.get("mode") == "enforce":
        length = "128k" if below and _STREAM < below <= 2 * _STREAM else "64k"
        print(f"\n--- iperf3 -c 127.0.0.1 -l {length}, {_ROUNDS} times {_SECONDS} seconds each, alternating")
        print("\n".join(_table(measure(tool, status.get("cgroup") == "/", length))))
    print(_HOW_TO.rstrip())
    return 0


_HOW_TO = """
--- which of the programs running here would gain, and which to leave alone
  sudo sockredirctl learn --seconds 60      watches their connections; changes nothing

--- how to accelerate a program of your own
  a program started by hand:  sudo sockredirctl exec PROGRAM ARGUMENTS...   (both ends of the connection)
  a systemd service:          ./run enable -e '{"sockredir_services": ["NAME.service"]}', then restart it
  the whole machine:          ./run enable -e sockredir_cgroup=/   (not with programs that splice(2) from sockets)
  watch it:                   sudo sockredirctl trace | counters | flows | status
  remove it:                  ./run disable
"""


def findings(below: Optional[int], calibration: Dict[str, Any]) -> List[str]:
    """In words, what enabling has found out about this machine.

    :param below: ``demote_below``, bytes.
    :param calibration: as ``status --json`` has it.
    """
    lines = []
    for name, asked in (("request_us", "a request and its response"), ("many_us", "the same on many connections")):
        if calibration.get(name):
            lines.append(f"  {asked}: {_request(**calibration[name])}")
    why = {
        "measured": "measured on this machine",
        "given": "as given",
        "default": f"the default, since it could not be measured: {calibration.get('problem')}",
    }.get(calibration.get("source", ""), "as it was before")
    lines.append(f"  one-way streams: {_streams(below)} ({why})")
    return lines + _stream_gains(below, calibration.get("ratios") or {})


def _request(plain: float, redirected: float) -> str:
    """Microseconds, in words; a gain below 5 % is not called faster."""
    times = f", {plain / redirected:.1f} times as fast" if plain >= 1.05 * redirected else ""
    return f"{redirected:.1f} us{times}; by plain TCP {plain:.1f} us"


def _stream_gains(below: Optional[int], ratios: Dict[str, float]) -> List[str]:
    """How much faster redirected streams are, by bytes a message; none of those that are left to TCP."""
    gains = [(int(size), ratio) for size, ratio in ratios.items() if int(size) >= (below or 0) and ratio >= 1.05]
    said = [f"{ratio:.1f} times as fast with {size >> 10} KiB" for size, ratio in sorted(gains)]
    return [f"    {', '.join(said)} per message"] if said else []


def _streams(below: Optional[int]) -> str:
    if not below:
        return "redirected, whatever the size of a message"
    if below >= _NEVER:
        return "left to TCP, which is faster here"
    size = f"{below >> 10} KiB" if below % 1024 == 0 else f"{below} bytes"
    return f"redirected from {size} per message up; with smaller messages they are left to TCP"


def measure(tool: str, whole_host: bool, length: str) -> Dict[str, Measured]:
    """Plain and redirected pairs in turns; if the whole host is accelerated there is no plain one."""
    kinds = {"plain TCP": [], "redirected": [tool, "exec"]}
    if whole_host:
        del kinds["plain TCP"]
    rounds: Dict[str, List[Measured]] = {kind: [] for kind in kinds}
    for _round in range(_ROUNDS):
        for kind, prefix in kinds.items():
            rounds[kind].append(_transfer(prefix, length))
    return {kind: Measured(*map(sum, zip(*results))) for kind, results in rounds.items()}


def _transfer(prefix: List[str], length: str) -> Measured:
    port = _free_port()
    with _server([*prefix, "iperf3", "-s", "-1", "-p", port, "--forceflush"]):
        before = _lo_bytes()
        client = ["iperf3", "-c", "127.0.0.1", "-t", _SECONDS, "-l", length, "-p", port, "-J"]
        received = json.loads(_output([*prefix, *client]))["end"]["sum_received"]
        return Measured(received["bytes"], received["seconds"], _lo_bytes() - before)


@contextlib.contextmanager
def _server(command: List[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout or []:
                if "listening" in line:
                    break
            yield
            server.communicate(timeout=30)
        finally:
            server.kill()


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _lo_bytes() -> int:
    with open(_LO, encoding="ascii") as count:
        return int(count.read())


def _output(command: List[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=False)
    if done.returncode and not done.stdout:
        sys.exit(f"show.py: {' '.join(command)} failed with exit code {done.returncode}")
    return done.stdout


def _table(results: Dict[str, Measured]) -> List[str]:
    lines = [f"{'':<12}{'throughput':>16}{'sent':>12}{'sent over lo':>16}"]
    for kind, result in results.items():
        share = f"{result.lo_bytes / 1e9:.2f} GB"
        lines.append(f"{kind:<12}{result.rate / 1e9:>9.1f} Gbit/s{result.bytes / 1e9:>9.2f} GB{share:>16}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
