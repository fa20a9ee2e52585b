# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Works of real servers, each with the client that comes for it: redis, PostgreSQL, nginx."""

from __future__ import annotations

import contextlib
import pwd
import re
import shutil
import signal
from pathlib import Path
from typing import ContextManager, Dict, Iterator, List

from .names import OBSERVE, OURS, PLAIN, TCP, UNIX
from .subjects import Subject
from .work import P50, P99, RATE, SIZES, Work, installed, of_postgresql, port, whole

_NGINX = """\
daemon off;
worker_processes 1;
pid {place}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    root {place}/bodies;
    client_body_temp_path {place}/client_body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    server {{ listen {host}:{read}; }}
    server {{ listen {host}:{sendfile}; sendfile on; }}
}}
"""


def redis(operation: str, size: int) -> Work:
    """redis-benchmark with 20 connections."""

    def address(subject: Subject) -> List[str]:
        if subject.name == UNIX:
            return ["-s", str(subject.directory / "redis.sock")]
        return ["-h", "127.0.0.1", "-p", str(port(subject, 3))]

    def serve(subject: Subject, _tools: Path) -> ContextManager[None]:
        command = ["redis-server", "--save", "", "--appendonly", "no", "--dir", str(subject.directory)]
        command += ["--unixsocket", str(subject.directory / "redis.sock"), "--bind", "127.0.0.1"]
        return subject.serving([*command, "--port", str(port(subject, 3))], ready="eady to accept connections")

    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        command = ["redis-benchmark", *address(subject), "-c", "20", "-t", operation, "-d", str(size)]
        output = subject.run([*command, "-n", str(round(40000 * seconds)), "--csv"], timeout=seconds * 20 + 60)
        header, values = (line.strip().strip('"').split('","') for line in output.strip().splitlines()[-2:])
        row = dict(zip(header, values))
        return {
            "rate": float(row["rps"]),
            "p50_us": 1000 * float(row["p50_latency_ms"]),
            "p99_us": 1000 * float(row["p99_latency_ms"]),
        }

    title = f"redis-benchmark -c 20 {operation.upper()} {SIZES[size]}"
    programs = {name: installed(name) for name in ("redis-server", "redis-benchmark")}
    names = [TCP, PLAIN, OURS, OBSERVE, UNIX]
    return Work(f"redis-{operation}-{size}", title, [RATE, P50, P99], names, serve, run, "redis", programs=programs)


def transactions(output: str) -> float:
    """A second, without making connections, by what pgbench said.

    :raises ValueError: it did none, or some failed.
    """
    found = re.search(r"^tps = ([\d.]+) \((?:without|excluding)", output, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: ([1-9].*)", output, re.MULTILINE)
    if not found or failed:
        raise ValueError(f"pgbench: {'failed transactions: ' + failed.group(1) if failed else output}")
    return float(found.group(1))


def _unprivileged() -> pwd.struct_passwd:
    """PostgreSQL does not run as root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def pgbench() -> Work:
    """pgbench's select-only script with 4 clients, on a database directory of its own."""
    programs = {name: of_postgresql(name) for name in ("initdb", "postgres", "pgbench")}
    user = _unprivileged()
    become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def command(name: str, *words: str) -> List[str]:
        return [*become, str(programs[name]), *words]

    def client(subject: Subject, *words: str) -> List[str]:
        host = str(subject.directory / "postgresql") if subject.name == UNIX else "127.0.0.1"
        where = ["-h", host, "-p", str(port(subject, 4)), "-U", "postgres"]
        return command("pgbench", *where, *words, "postgres")

    @contextlib.contextmanager
    def serve(subject: Subject, _tools: Path) -> Iterator[None]:
        data = subject.directory / "postgresql"
        data.mkdir(mode=0o700)
        shutil.chown(data, user.pw_uid, user.pw_gid)
        initdb = command("initdb", "--no-sync", "--auth=trust", "--username=postgres", "-D", str(data))
        subject.run(initdb, timeout=120)
        options = {"port": port(subject, 4), "listen_addresses": "127.0.0.1", "unix_socket_directories": data}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        server = command("postgres", "-D", str(data), *words)
        with subject.serving(server, "ready to accept connections", name="postgres", stop=signal.SIGINT):
            subject.run(client(subject, "-i", "-q"), timeout=120)
            yield

    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        output = subject.run(client(subject, "-S", "-n", "-c", "4", "-T", whole(seconds)), timeout=seconds + 60)
        return {"rate": transactions(output)}

    names = [TCP, PLAIN, OURS, OBSERVE, UNIX]
    return Work("pgbench", "pgbench -S -c 4", [RATE], names, serve, run, "servers", programs=programs)


def requests(output: str) -> float:
    """A second, by what wrk said.

    :raises ValueError: it did none, or some failed.
    """
    found = re.search(r"^Requests/sec: +([\d.]+)", output, re.MULTILINE)
    failed = re.search(r"^ *(Non-2xx.*|Socket errors.*)", output, re.MULTILINE)
    if not found or failed:
        raise ValueError(f"wrk: {failed.group(1) if failed else output}")
    return float(found.group(1))


def nginx_command(subject: Subject, sizes: List[int], host: str = "127.0.0.1") -> List[str]:
    """Its configuration and files; the command that serves them."""
    bodies = subject.directory / "bodies"
    bodies.mkdir(exist_ok=True)
    bodies.chmod(0o755)
    for size in sizes:
        (bodies / str(size)).write_bytes(b"x" * size)
        (bodies / str(size)).chmod(0o644)
    text = _NGINX.format(place=subject.directory, host=host, read=port(subject, 5), sendfile=port(subject, 6))
    (subject.directory / "nginx.conf").write_text(text, encoding="utf-8")
    return [str(installed("nginx")), "-p", str(subject.directory), "-c", str(subject.directory / "nginx.conf")]


def nginx(size: int, sendfile: bool) -> Work:
    """A body of this size from nginx to wrk with 4 connections."""

    def serve(subject: Subject, _tools: Path) -> ContextManager[None]:
        command = nginx_command(subject, [size])
        return subject.serving(command, "start worker process", name="nginx", stop=signal.SIGTERM)

    def run(subject: Subject, _tools: Path, seconds: float) -> Dict[str, float]:
        url = f"http://127.0.0.1:{port(subject, 6 if sendfile else 5)}/{size}"
        output = subject.run(["wrk", "-t1", "-c4", f"-d{whole(seconds)}s", url], timeout=seconds + 60)
        return {"rate": requests(output)}

    more = "-sendfile" if sendfile else ""
    title = f"nginx{' sendfile' if sendfile else ''} {SIZES[size]}, wrk -c4"
    programs = {name: installed(name) for name in ("nginx", "wrk")}
    names = [TCP, PLAIN, OURS, OBSERVE]
    return Work(f"nginx-{size}{more}", title, [RATE], names, serve, run, "servers", programs=programs)
