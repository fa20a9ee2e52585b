# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pieces of work that each subject does, and what is measured of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Callable, ContextManager, Dict, Iterator, List, NamedTuple

from .subjects import OURS, PLAIN, TCP, UNIX, Subject

HIGHER, LOWER = "higher", "lower"
SIZES = {64: "64 B", 1024: "1 KiB", 4096: "4 KiB", 16384: "16 KiB", 24576: "24 KiB", 32768: "32 KiB"}
SIZES.update({65536: "64 KiB", 262144: "256 KiB"})
LOCAL, VETH = "local", "veth"
VETH_NAME, VETH_HERE, VETH_THERE = "sockredir-bench", "198.18.78.1", "198.18.78.2"


class Metric(NamedTuple):
    """One figure of a work: ``key`` in what the work returns."""

    key: str
    name: str
    better: str


THROUGHPUT = Metric("mbytes_per_second", "throughput", HIGHER)
RATE = Metric("rate", "rate", HIGHER)
P50 = Metric("p50_us", "p50", LOWER)
P99 = Metric("p99_us", "p99", LOWER)


class Work(NamedTuple):
    """Something to measure. ``serve`` is entered once for each subject, ``run`` called again and again."""

    id: str
    title: str
    metrics: List[Metric]
    subjects: List[str]
    serve: Callable[[Subject, Path], ContextManager[None]]
    run: Callable[[Subject, Path, float], Dict[str, float]]
    place: str = LOCAL
    program: str = ""
    """A program that must be installed."""


def endpoint(subject: Subject, place: str) -> str:
    if subject.name == UNIX:
        return f"unix:{subject.directory / 'bench.sock'}"
    address = VETH_THERE if place == VETH else "127.0.0.1"
    return f"tcp:{address}:{port(subject)}"


def port(subject: Subject, offset: int = 0) -> int:
    return 21500 + 10 * subject.number + offset


def sockbench(kind: str, size: int, connections: int = 1, place: str = LOCAL, id_more: str = "", title_more: str = ""):
    """A work of tests/bench/sockbench.c."""
    titles = {"rr": "request/response", "stream": "one way", "crr": "connect, request, close"}
    metrics = {"rr": [P50, P99, RATE], "stream": [THROUGHPUT], "crr": [RATE, P50, P99]}[kind]
    names = [TCP, OURS] if place == VETH else [TCP, PLAIN, OURS, UNIX]
    more = [str(connections)] if connections > 1 else []

    @contextlib.contextmanager
    def serve(subject: Subject, tools: Path) -> Iterator[None]:
        with subject.serving([str(tools / "sockbench"), "serve", endpoint(subject, place)], ready="serving"):
            yield

    def run(subject: Subject, tools: Path, seconds: float) -> Dict[str, float]:
        command = [str(tools / "sockbench"), kind, endpoint(subject, place), str(size), str(seconds), *more]
        return json.loads(subject.run(command, timeout=seconds + 60))

    title = f"{titles[kind]} {SIZES[size]}{title_more}"
    return Work(f"{kind}-{size}{id_more}", title, metrics, names, serve, run, place)


def _serve_iperf3(subject: Subject, _tools: Path) -> ContextManager[None]:
    command = ["iperf3", "-s", "-p", str(port(subject, 1)), "--forceflush", "-B", "127.0.0.1"]
    return subject.serving(command, ready="listening")


def _run_iperf3(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
    command = [
        "iperf3",
        "-c",
        "127.0.0.1",
        "-p",
        str(port(subject, 1)),
        "-l",
        "64k",
        "-J",
        "-t",
        str(max(1, round(seconds))),
    ]
    received = json.loads(subject.run(command, timeout=seconds + 60))["end"]["sum_received"]
    return {"mbytes_per_second": received["bits_per_second"] / 8e6}


def _serve_sockperf(subject: Subject, _tools: Path) -> ContextManager[None]:
    command = ["sockperf", "server", "--tcp", "-i", "127.0.0.1", "-p", str(port(subject, 2)), "--tcp-avoid-nodelay"]
    return subject.serving(command[:-1], ready="using recvfrom")


def _run_sockperf(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
    command = ["sockperf", "ping-pong", "--tcp", "-i", "127.0.0.1", "-p", str(port(subject, 2)), "-m", "64"]
    output = subject.run([*command, "-t", str(max(1, round(seconds)))], timeout=seconds + 60)
    found = {}
    for line in output.splitlines():
        words = line.replace("=", " ").split()
        for percentile, key in (("50.000", "p50_us"), ("99.000", "p99_us")):
            if "percentile" in words and percentile in words:
                # sockperf gives half of a round trip.
                found[key] = 2 * float(words[-1])
    if len(found) != 2:
        raise RuntimeError(f"{subject.name}: no percentiles in what sockperf said: {output}")
    return found


def _redis_address(subject: Subject) -> List[str]:
    if subject.name == UNIX:
        return ["-s", str(subject.directory / "redis.sock")]
    return ["-h", "127.0.0.1", "-p", str(port(subject, 3))]


def _serve_redis(subject: Subject, _tools: Path) -> ContextManager[None]:
    command = ["redis-server", "--save", "", "--appendonly", "no", "--dir", str(subject.directory)]
    command += ["--unixsocket", str(subject.directory / "redis.sock"), "--bind", "127.0.0.1"]
    return subject.serving([*command, "--port", str(port(subject, 3))], ready="eady to accept connections")


def redis(operation: str, size: int) -> Work:
    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        command = ["redis-benchmark", *_redis_address(subject), "-c", "20", "-t", operation, "-d", str(size)]
        output = subject.run([*command, "-n", str(round(40000 * seconds)), "--csv"], timeout=seconds * 20 + 60)
        header, values = (line.strip().strip('"').split('","') for line in output.strip().splitlines()[-2:])
        row = dict(zip(header, values))
        return {
            "rate": float(row["rps"]),
            "p50_us": 1000 * float(row["p50_latency_ms"]),
            "p99_us": 1000 * float(row["p99_latency_ms"]),
        }

    title = f"redis-benchmark -c 20 {operation.upper()} {SIZES[size]}"
    names = [TCP, PLAIN, OURS, UNIX]
    return Work(
        f"redis-{operation}-{size}", title, [RATE, P50, P99], names, _serve_redis, run, program="redis-benchmark"
    )


def all_works() -> List[Work]:
    works = [sockbench("rr", size) for size in (64, 1024, 4096, 16384, 65536)]
    works += [sockbench("rr", 64, 200, id_more="-200", title_more=", 200 connections")]
    works += [sockbench("stream", size) for size in (64, 1024, 4096, 16384, 24576, 32768, 65536, 262144)]
    works += [sockbench("crr", 64)]
    programs = [TCP, PLAIN, OURS]
    works += [
        Work("iperf3", "iperf3 -l 64k", [THROUGHPUT], programs, _serve_iperf3, _run_iperf3, program="iperf3"),
        Work(
            "sockperf",
            "sockperf ping-pong 64 B",
            [P50, P99],
            programs,
            _serve_sockperf,
            _run_sockperf,
            program="sockperf",
        ),
    ]
    works += [redis(operation, size) for operation in ("set", "get") for size in (64, 4096)]
    not_local = {"place": VETH, "id_more": "-veth", "title_more": ", not local"}
    works += [
        sockbench("rr", 64, **not_local),
        sockbench("stream", 65536, **not_local),
        sockbench("crr", 64, **not_local),
    ]
    return works


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
