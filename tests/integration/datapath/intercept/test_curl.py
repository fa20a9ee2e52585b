# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""curl through each proxy, to another local address and over veth to another network namespace."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid

import pytest
from support.netns import netns
from support.proxies import KINDS, LOCAL, program

HERE4, THERE4 = "198.18.81.1", "198.18.81.2"
HERE6, THERE6 = "fd00:736f:636b::1", "fd00:736f:636b::2"
NETWORKS = (*LOCAL, f"{THERE4}/32", f"{THERE6}/128")
#: Answers with its own address: it is the one that was reached.
SERVER = """
import http.server, socket, sys

class Names(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"%s %d" % (self.connection.getsockname()[0].encode(), self.connection.getsockname()[1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

server = Server(("::", int(sys.argv[1])), Names)
print("ready", flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def names(port: int, *prefix: str):
    command = [*prefix, sys.executable, "-c", SERVER, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


@contextlib.contextmanager
def veth():
    """A namespace, and a way there from this one."""
    device = f"srt{uuid.uuid4().hex[:8]}"
    with netns() as there:
        commands = [f"ip link add {device} type veth peer name eth0 netns {there.name}"]
        for where, name, four, six in (("", device, HERE4, HERE6), (f"-n {there.name} ", "eth0", THERE4, THERE6)):
            commands += [f"ip {where}addr add {four}/24 dev {name}", f"ip {where}link set {name} up"]
            commands += [f"ip {where}addr add {six}/64 dev {name} nodad"]
        try:
            for command in commands:
                subprocess.run(command.split(), check=True)
            yield there
        finally:
            subprocess.run(["ip", "link", "delete", device], check=True)


@pytest.fixture(scope="module")
def far():
    """The port of servers on this host and behind veth."""
    with contextlib.ExitStack() as stack:
        port = 20_000 + time.monotonic_ns() % 10_000
        there = stack.enter_context(veth())
        stack.enter_context(names(port, *there.prefix))
        stack.enter_context(names(port))
        yield port


def curl(intercepted, address: str, port: int) -> str:
    """What the server says, and where curl believes to be."""
    host = f"[{address}]" if ":" in address else address
    command = [program("curl"), "-sSg", "--noproxy", "*", "--max-time", "60", "-w", " %{remote_ip} %{remote_port}"]
    with intercepted.as_app():
        done = subprocess.run([*command, f"http://{host}:{port}/"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_curl(intercepted, running, far, kind):
    families, values = KINDS[kind]
    getattr(running, kind)()
    running.rule(*families, cidrs=NETWORKS, **values)
    four, six = ("127.0.0.77", THERE4), ("::1", THERE6) if len(families) > 1 else ()
    asked = [*four, *(f"::ffff:{address}" for address in four), *six]
    for address in asked:
        reached = address if ":" in address else f"::ffff:{address}"
        assert curl(intercepted, address, far) == f"{reached} {far} {address} {far}"
    counts = intercepted.counts(1)
    assert counts["rewritten"] == counts["claimed"] == len(asked)
    assert counts["looped"] == counts["lost"] == 0
    assert intercepted.pending() == 0
