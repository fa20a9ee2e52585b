# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers side by side in one cgroup, and what their clients do."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from pathlib import Path

from programs import test_haproxy, test_iperf3, test_java, test_memcached, test_postgresql, test_redis, test_rsync
from programs.base import curl, nginx

SPLICED, FTP, IDLE, SINK = 8191, 8192, 8193, 8194
REDIS, MEMCACHED, IPERF3, POSTGRESQL, RSYNC = 8031, 8061, 8021, 8041, 8131
HAPROXY_TCP, HAPROXY_HTTP = 8091, 8092
IDLE_CONNECTIONS = 200
PYTHON = Path(sys.executable).name
_SINK = Path(__file__).with_name("sink.c")
_SENT = 1 << 20

_HAPROXY = f"""
defaults
    timeout connect 60s
    timeout client 60s
    timeout server 60s
listen splice
    mode tcp
    option splice-request
    option splice-response
    bind 127.0.0.1:{SPLICED}
    server origin 127.0.0.1:{nginx.READ}
"""

_VSFTPD = f"""
listen=YES
background=NO
listen_address=127.0.0.1
listen_port={FTP}
anonymous_enable=YES
no_anon_password=YES
run_as_launching_user=YES
async_abor_enable=YES
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
"""

_FTP_CLIENT = """
import ftplib, sys
ftp = ftplib.FTP()
ftp.connect("127.0.0.1", int(sys.argv[1]), timeout=60)
ftp.login()
for _turn in range(30):
    ftp.voidcmd("NOOP")
print(ftp.abort()[:3])
ftp.quit()
"""

_IDLE = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=int(sys.argv[2]))
clients = [socket.create_connection(listener.getsockname()) for _number in range(int(sys.argv[2]))]
accepted = [listener.accept()[0] for _client in clients]
print("made", flush=True)
time.sleep(3600)
"""


@contextlib.contextmanager
def _splicing_proxy(place):
    configuration = place.directory / "splice.cfg"
    configuration.write_text(_HAPROXY)
    with place.serving(["haproxy", "-db", "-f", str(configuration)], SPLICED, log="splice"):
        yield


@contextlib.contextmanager
def _ftp_server(place):
    files = place.directory / "ftp"
    files.mkdir(mode=0o755)
    configuration = place.directory / "vsftpd.conf"
    configuration.write_text(f"{_VSFTPD}\nanon_root={files}\nsecure_chroot_dir={files}\n")
    with place.serving(["vsftpd", str(configuration)], FTP):
        yield


@contextlib.contextmanager
def _idle(place):
    with place.started([sys.executable, "-c", _IDLE, str(IDLE), str(IDLE_CONNECTIONS)], log="idle") as process:
        while "made" not in place.log("idle"):
            assert process.poll() is None, place.log("idle")
        yield


@contextlib.contextmanager
def _sink(place):
    """A program that splices what it gets into a file."""
    program = place.directory / "sink"
    subprocess.run(["cc", "-O1", "-Wall", "-o", str(program), str(_SINK)], check=True)
    with place.serving([str(program), str(SINK), str(place.directory / "sunk")], SINK):
        yield


_SEND = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(bytes(range(256)) * (int(sys.argv[2]) // 256))
    connection.shutdown(socket.SHUT_WR)
    print(connection.recv(1))
"""


def _sunk(place):
    """The answer that comes when all is there, and what is in the file."""
    told = place.must([sys.executable, "-c", _SEND, str(SINK), str(_SENT)])
    return told, hashlib.sha256((place.directory / "sunk").read_bytes()).hexdigest()


def _http(place):
    ports = (nginx.SENDFILE, nginx.READ, nginx.BUFFERED, HAPROXY_TCP, HAPROXY_HTTP, SPLICED)
    return [(curl.many(place, port, "small", 100), curl.get(place, port, "large")) for port in ports]


def work(place):
    """What each of them does all day; what has to be the same whichever way the bytes go."""
    asked = ["redis-benchmark", "-p", str(REDIS), "-c", "20", "-n", "5000", "-q", "-t", "set,get"]
    return {
        "http": _http(place),
        "redis": (place.run(asked).exit, test_redis._cli(place, "DEBUG", "DIGEST")),
        "memcached": test_memcached._values(place),
        "postgresql": (test_postgresql._select(place), test_postgresql._tpcb(place)),
        "rsync": test_rsync._work(place),
        "iperf3": place.run(["iperf3", "-c", "127.0.0.1", "-p", str(IPERF3), "-n", str(64 << 20)]).exit,
        "java": test_java._read(place, "available"),
        "ftp": place.must([sys.executable, "-c", _FTP_CLIENT, str(FTP)]).strip() in (b"225", b"226"),
        "sink": _sunk(place),
    }


@contextlib.contextmanager
def serving(place):
    """All servers for the length of the block."""
    servers = [test_haproxy, test_redis, test_memcached, test_postgresql, test_rsync, test_iperf3, test_java]
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(server.serve(place))
        for server in (_splicing_proxy, _ftp_server, _idle, _sink):
            stack.enter_context(server(place))
        yield
