# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Works that do nothing but move bytes: sockbench, iperf3, sockperf; and the way to another namespace."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import ContextManager, Dict, Iterator, List

from .names import OBSERVE, OURS, PLAIN, TCP, UNIX
from .subjects import Subject
from .work import (
    FED,
    LOCAL,
    P50,
    P99,
    RATE,
    SIZES,
    THROUGHPUT,
    VETH,
    VETH_HERE,
    VETH_NAME,
    VETH_THERE,
    Work,
    endpoint,
    installed,
    port,
    whole,
)

_ALL = [TCP, PLAIN, OURS, OBSERVE, UNIX]
_NO_UNIX = [TCP, PLAIN, OURS, OBSERVE]
_TITLES = {
    "rr": "request/response",
    "stream": "one way",
    "threaded": "one way from two threads",
    "crr": "connect, request, close",
    "pings": "pings beside a slow reader",
}
_METRICS = {
    "rr": [P50, P99, RATE],
    "stream": [THROUGHPUT],
    "threaded": [THROUGHPUT],
    "crr": [RATE, P50, P99],
    "pings": [P50, P99, FED],
}


def sockbench(
    kind: str,
    size: int,
    group: str,
    connections: int = 1,
    place: str = LOCAL,
    id_more: str = "",
    title_more: str = "",
) -> Work:
    """A work of sockbench.c."""
    server = "loop" if kind == "pings" else "serve"
    more = [str(connections)] if connections > 1 else []

    @contextlib.contextmanager
    def serve(subject: Subject, tools: Path) -> Iterator[None]:
        with subject.serving([str(tools / "sockbench"), server, endpoint(subject, place)], ready="serving"):
            yield

    def run(subject: Subject, tools: Path, seconds: float) -> Dict[str, float]:
        command = [str(tools / "sockbench"), kind, endpoint(subject, place), str(size), str(seconds), *more]
        return json.loads(subject.run(command, timeout=seconds + 60))

    title = f"{_TITLES[kind]} {SIZES[size]}{title_more}"
    names = [TCP, OURS, OBSERVE] if place == VETH else _ALL
    return Work(f"{kind}-{size}{id_more}", title, _METRICS[kind], names, serve, run, group, place)


def received(report: dict) -> float:
    """MB/s that arrived, in both directions together, by what iperf3 reports.

    :raises ValueError: it reports none.
    """
    end = report["end"]
    if "sum_received" not in end:
        raise ValueError(f"iperf3: {report.get('error', 'nothing arrived')}")
    back = end.get("sum_received_bidir_reverse", {"bits_per_second": 0})
    return (end["sum_received"]["bits_per_second"] + back["bits_per_second"]) / 8e6


def iperf3(options: str, id_more: str = "") -> Work:
    """iperf3 with these options."""

    def serve(subject: Subject, _tools: Path) -> ContextManager[None]:
        command = ["iperf3", "-s", "-p", str(port(subject, 1)), "--forceflush", "-B", "127.0.0.1"]
        return subject.serving(command, ready="listening")

    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        command = ["iperf3", "-c", "127.0.0.1", "-p", str(port(subject, 1)), "-J", "-t", whole(seconds)]
        output = subject.run([*command, *options.split()], timeout=seconds + 60)
        return {"mbytes_per_second": received(json.loads(output))}

    title = f"iperf3 {options}{' (sum)' if options == '--bidir' else ''}".rstrip()
    programs = {"iperf3": installed("iperf3")}
    return Work(f"iperf3{id_more}", title, [THROUGHPUT], _NO_UNIX, serve, run, "iperf3", programs=programs)


def percentiles(output: str) -> Dict[str, float]:
    """Of round trips, in microseconds; sockperf gives half of one.

    :raises ValueError: they are not there.
    """
    found = {}
    for line in output.splitlines():
        words = line.replace("=", " ").split()
        for percentile, key in (("50.000", "p50_us"), ("99.000", "p99_us")):
            if "percentile" in words and percentile in words:
                found[key] = 2 * float(words[-1])
    if len(found) != 2:
        raise ValueError(f"no percentiles in what sockperf said: {output}")
    return found


def sockperf(group: str) -> Work:
    def address(subject: Subject) -> List[str]:
        return ["--tcp", "-i", "127.0.0.1", "-p", str(port(subject, 2))]

    def serve(subject: Subject, _tools: Path) -> ContextManager[None]:
        return subject.serving(["sockperf", "server", *address(subject)], ready="using recvfrom")

    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        command = ["sockperf", "ping-pong", *address(subject), "-m", "64", "-t", whole(seconds)]
        return percentiles(subject.run(command, timeout=seconds + 60))

    programs = {"sockperf": installed("sockperf")}
    return Work("sockperf", "sockperf ping-pong 64 B", [P50, P99], _NO_UNIX, serve, run, group, programs=programs)


@contextlib.contextmanager
def veth() -> Iterator[str]:
    """A second namespace, reached over veth; its name."""
    commands = (
        f"ip netns add {VETH_NAME}",
        f"ip link add {VETH_NAME[:11]} type veth peer name eth0 netns {VETH_NAME}",
        f"ip addr add {VETH_HERE}/24 dev {VETH_NAME[:11]}",
        f"ip link set {VETH_NAME[:11]} up",
        f"ip -n {VETH_NAME} addr add {VETH_THERE}/24 dev eth0",
        f"ip -n {VETH_NAME} link set eth0 up",
    )
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield VETH_NAME
    finally:
        subprocess.run(["ip", "netns", "del", VETH_NAME], check=False, capture_output=True)
