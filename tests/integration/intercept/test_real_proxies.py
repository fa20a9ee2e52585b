# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real proxies with the configurations of ``examples/intercept``, but for their ports and directories."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import listeners
from support.collection import ROOT
from support.datapath import read_exactly

EXAMPLES = ROOT / "examples" / "intercept"
LOCAL = ("127.0.0.0/8", "::1/128")
SIZE = 300_000


class Server:
    """Where programs want to go: it reads a stream and sends it back, or answers one HTTP request."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family)
        self.end = self.listener.getsockname()[:2]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self.listener.accept()[0],), daemon=True).start()

    @staticmethod
    def _answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(60)
            while True:
                part = client.recv(65536)
                if not part:
                    return
                if part.startswith(b"GET "):
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                    return
                client.sendall(part)

    def __enter__(self):
        return self

    def __exit__(self, *_exception: object) -> None:
        self.listener.close()


def free_ports(count: int):
    """Free on every loopback address."""
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
            for _port in range(count)
        ]
        return [each.getsockname()[1] for each in held]


class Running:
    """Starts proxies in their cgroup, each until the test ends."""

    def __init__(self, lab, directory) -> None:
        self.lab, self.directory = lab, directory
        self.ports = dict(zip((15001, 3128), free_ports(2)))

    def configuration(self, name: str, more: str = "") -> str:
        text = (EXAMPLES / name).read_text()
        for port, own in self.ports.items():
            text = text.replace(f":{port}", f":{own}").replace(f"port = {port}", f"port = {own}")
        path = self.directory / name
        path.write_text(text + more)
        return str(path)

    def start(self, port: int, *command: str) -> None:
        """:param port: as in the example; it is there when this returns."""
        program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin")
        if not program:
            pytest.skip(f"{command[0]} is not installed")
        with self.lab.icept.as_proxy(), open(self.directory / f"{command[0]}.log", "wb") as log:
            process = subprocess.Popen([program, *command[1:]], stdout=log, stderr=log, start_new_session=True)
        self.lab._stack.callback(self._end, process)
        deadline = time.monotonic() + 60
        while not listeners.is_heard(f"127.0.0.1:{self.ports[port]}", listeners.listeners()):
            assert process.poll() is None, (self.directory / f"{command[0]}.log").read_text()
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.05)

    @staticmethod
    def _end(process: subprocess.Popen) -> None:
        """With its workers; it has a session of its own."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def rule(self, *families: str, **values) -> None:
        ends = [End(address, self.ports[15001]) for address in families or ("127.0.0.1", "::1")]
        self.lab.icept.write(self.lab.icept.rule(*ends, cidrs=LOCAL, **values))


@pytest.fixture
def running(lab, tmp_path):
    os.chmod(tmp_path, 0o755)
    return Running(lab, tmp_path)


def carried(lab, address: str, server: Server) -> None:
    """A stream there and back, and the client is where it wanted to be."""
    port = server.end[1]
    client = lab.connect(address, port)
    assert client.getpeername()[:2] == (address, port)
    sent = os.urandom(SIZE)
    writer = threading.Thread(target=client.sendall, args=(sent,))
    writer.start()
    assert read_exactly(client, SIZE) == sent
    writer.join()
    client.close()


def stream_everywhere(lab, addresses) -> None:
    for address in addresses:
        with Server("::1" if address == "::1" else "127.0.0.77") as server:
            carried(lab, address, server)
    counts = lab.icept.counts(1)
    assert counts["claimed"] == counts["rewritten"] == len(addresses)
    assert counts["looped"] == 0
    assert lab.icept.pending() == 0


BOTH = ("127.0.0.77", "::ffff:127.0.0.77", "::1")


def test_haproxy(lab, running):
    running.start(15001, "haproxy", "-db", "-f", running.configuration("haproxy.cfg"))
    running.rule(sockname=True)
    stream_everywhere(lab, BOTH)
    assert lab.icept.counts(1)["answered"] >= 2


def test_nginx_stream(lab, running):
    if not os.path.exists("/usr/lib/nginx/modules/ngx_stream_module.so"):
        pytest.skip("nginx's stream module is not installed (libnginx-mod-stream)")
    text = running.configuration("nginx.conf")
    head = f"daemon off; pid {running.directory}/pid; load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
    running.start(15001, "nginx", "-c", text, "-e", f"{running.directory}/error.log", "-g", head)
    running.rule(sockname=True)
    stream_everywhere(lab, BOTH)


def get(lab, server: Server) -> bytes:
    client = lab.connect(*server.end)
    client.sendall(
        b"GET /x HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n\r\n" % (server.end[0].encode(), server.end[1])
    )
    answer = b""
    while True:
        part = client.recv(65536)
        if not part:
            return answer
        answer += part


def squid(running) -> tuple:
    more = f"pid_filename {running.directory}/pid\ncache_log /dev/stderr\npinger_enable off\n"
    os.chmod(running.directory, 0o777)
    return ("squid", "-N", "-f", running.configuration("squid.conf", more))


def test_squid(lab, running):
    running.start(15001, *squid(running))
    running.rule("127.0.0.1")
    with Server("127.0.0.77") as server:
        answer = get(lab, server)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b"Via: " in answer
    assert answer.endswith(b"hello")
    assert lab.icept.counts(1)["answered"] >= 1


def test_redsocks_before_squid(lab, running):
    running.start(3128, *squid(running))
    own = running.ports[15001]
    running.ports[15001] = free_ports(1)[0]  # squid has the other
    assert own != running.ports[15001]
    running.start(15001, "redsocks", "-c", running.configuration("redsocks.conf"))
    running.rule("127.0.0.1")
    stream_everywhere(lab, BOTH[:2])
