# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn names each of these programs rightly: its port, its verdict, the reason and who is to blame."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest
from programs import test_haproxy, test_iperf3, test_java, test_memcached, test_postgresql, test_redis, test_rsync
from programs.base import curl, nginx
from support.learning import SOURCE, by_port, learning

SPLICED, FTP, IDLE = 8191, 8192, 8193
REDIS, MEMCACHED, IPERF3, POSTGRESQL, RSYNC = 8031, 8061, 8021, 8041, 8131
HAPROXY_TCP, HAPROXY_HTTP = 8091, 8092
IDLE_CONNECTIONS = 200
PYTHON = Path(sys.executable).name

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


def _http(place):
    for port in (nginx.SENDFILE, nginx.BUFFERED, HAPROXY_TCP, HAPROXY_HTTP, SPLICED):
        assert curl.many(place, port, "small", 100)[0] == 0
        assert curl.get(place, port, "large")[0] == 0


def _work(place):
    """What each of them does all day."""
    _http(place)
    place.must(["redis-benchmark", "-p", str(REDIS), "-c", "20", "-n", "5000", "-q", "-t", "set,get"])
    test_memcached._values(place)
    test_postgresql._select(place)
    test_postgresql._tpcb(place)
    test_rsync._work(place)
    place.must(["iperf3", "-c", "127.0.0.1", "-p", str(IPERF3), "-n", str(64 << 20)])
    assert test_java._read(place, "available").exit == 0
    assert place.must([sys.executable, "-c", _FTP_CLIENT, str(FTP)]).strip() in (b"225", b"226")


@pytest.fixture(scope="module")
def zoo(own_place):
    """What learn says of them, by port, and the whole report."""
    servers = [test_haproxy, test_redis, test_memcached, test_postgresql, test_rsync, test_iperf3, test_java]
    options = ("--cgroup", str(own_place._cgroup), "--source", str(SOURCE), "--seconds", "300", "--json")
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(server.serve(own_place))
        for server in (_splicing_proxy, _ftp_server, _idle):
            stack.enter_context(server(own_place))
        run = stack.enter_context(learning(*options))
        _work(own_place)
        text = run.end()
    return by_port(text), json.loads(text)


EXPECTED = [
    (nginx.SENDFILE, "accelerate", [], "nginx", "curl"),
    (nginx.BUFFERED, "accelerate", [], "nginx", "curl"),
    (HAPROXY_TCP, "accelerate", [], "haproxy", "curl"),
    (HAPROXY_HTTP, "accelerate", [], "haproxy", "curl"),
    (SPLICED, "leave", ["splice-read"], "haproxy", "curl"),
    # The proxy splices from its server, too.
    (nginx.READ, "leave", ["splice-read"], "nginx", "haproxy"),
    (REDIS, "accelerate", [], "redis-server", "redis-benchmark"),
    (POSTGRESQL, "accelerate", [], "postgres", "pgbench"),
    (IPERF3, "accelerate", [], "iperf3", "iperf3"),
    (FTP, "leave", ["urgent-data"], "vsftpd", PYTHON),
]


@pytest.mark.parametrize(("port", "verdict", "reasons", "server", "client"), EXPECTED)
def test_verdicts(zoo, port, verdict, reasons, server, client):
    entry = zoo[0][port]
    assert (entry["verdict"], entry["reasons"]) == (verdict, reasons), entry
    # The kernel keeps 15 characters of a name.
    assert entry["programs"][0] == server[:15]
    assert client[:15] in entry["programs"]
    assert entry["local_share"] == 1.0


@pytest.mark.parametrize(("port", "blamed"), [(SPLICED, "haproxy"), (nginx.READ, "haproxy")])
def test_who_is_to_blame(zoo, port, blamed):
    assert zoo[0][port]["why"] == f"splice-read: {blamed}"


def test_idle_connections_gain_nothing(zoo):
    entry = zoo[0][IDLE]
    assert (entry["verdict"], entry["connections"], entry["bytes"]) == ("no-gain", IDLE_CONNECTIONS, 0)
    assert entry["programs"] == [PYTHON]


@pytest.mark.parametrize("program", ["java", "rsync", "memcached"])
def test_none_of_these_is_to_be_left(zoo, program):
    entries = [entry for entry in zoo[0].values() if program in entry["programs"]]
    assert entries
    assert {entry["verdict"] for entry in entries} <= {"accelerate", "no-gain"}, entries


def test_nothing_else_is_left(zoo):
    assert {entry["port"] for entry in zoo[0].values() if entry["verdict"] == "leave"} == {SPLICED, nginx.READ, FTP}


def test_variables_are_those_of_the_verdicts(zoo):
    variables = zoo[1]["variables"]
    assert variables["sockredir_exclude_ports"] == sorted([SPLICED, nginx.READ, FTP])
    assert {port for port, verdict, *_rest in EXPECTED if verdict == "accelerate"} <= set(variables["sockredir_ports"])
    assert IDLE not in variables["sockredir_ports"]
