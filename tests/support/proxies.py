# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real proxies with the configurations of ``examples/intercept``, but for their ports and directories."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Tuple

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import listeners

from .collection import ROOT

EXAMPLES = ROOT / "examples" / "intercept"
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
LOCAL = ("127.0.0.0/8", "::1/128")
BOTH = ("127.0.0.1", "::1")


#: None that the kernel gives to connections: a proxy binds its port a while after it was found to be free.
PORTS = range(10_000, 20_000)


def free_ports(count: int) -> List[int]:
    """Free on every loopback address."""
    found: List[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        with contextlib.suppress(OSError):
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
            found.append(port)
    assert len(found) == count, "no free ports"
    return found


def program(name: str) -> str:
    """Its path, from PATH, /usr/sbin, or next to this interpreter. The test is skipped without it."""
    places = (None, "/usr/sbin", str(Path(sys.executable).parent))
    found = next(filter(None, (shutil.which(name, path=place) for place in places)), None)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


class Running:
    """Starts proxies in their cgroup, each until the test ends."""

    def __init__(self, intercepted, directory: Path) -> None:
        self.intercepted, self.directory = intercepted, directory
        self.ports: Dict[int, int] = dict(zip((15001, 3128), free_ports(2)))

    def configuration(self, name: str, more: str = "") -> str:
        text = (EXAMPLES / name).read_text()
        for port, own in self.ports.items():
            for form in (":{}", "port = {}", "port_value: {}", "listen_port: {}"):
                text = text.replace(form.format(port), form.format(own))
        path = self.directory / name
        path.write_text(text + more)
        return str(path)

    def start(self, port: int, *command: str) -> subprocess.Popen:
        """:param port: as in the example; it is there when this returns."""
        log = self.directory / f"{command[0]}.log"
        join = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.intercepted.proxy / "cgroup.procs")]
        with open(log, "ab") as output:
            words = [*join, program(command[0]), *command[1:]]
            process = subprocess.Popen(words, stdout=output, stderr=output, start_new_session=True)
        self.intercepted.keep(self._until_the_end(process))
        deadline = time.monotonic() + 60
        while not listeners.is_heard(f"127.0.0.1:{self.ports[port]}", listeners.listeners()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{command[0]} does not listen"
            time.sleep(0.05)
        return process

    @staticmethod
    @contextlib.contextmanager
    def _until_the_end(process: subprocess.Popen):
        """It ends with its workers: it has a session of its own."""
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def rule(self, *families: str, cidrs: Tuple[str, ...] = LOCAL, **values) -> None:
        ends = [End(address, self.ports[15001]) for address in families or BOTH]
        self.intercepted.write(self.intercepted.rule(*ends, cidrs=cidrs, **values))

    def haproxy(self, more: str = "") -> None:
        self.start(15001, "haproxy", "-db", "-f", self.configuration("haproxy.cfg", more))

    def nginx(self) -> None:
        if not os.path.exists(STREAM_MODULE):
            pytest.skip("nginx's stream module is not installed (libnginx-mod-stream)")
        head = f"daemon off; pid {self.directory}/pid; load_module {STREAM_MODULE};"
        where = self.configuration("nginx.conf")
        self.start(15001, "nginx", "-c", where, "-e", f"{self.directory}/error.log", "-g", head)

    def squid(self, port: int = 15001) -> None:
        more = f"pid_filename {self.directory}/pid\ncache_log /dev/stderr\npinger_enable off\n"
        os.chmod(self.directory, 0o777)
        self.start(port, "squid", "-N", "-f", self.configuration("squid.conf", more))

    def redsocks(self) -> None:
        self.squid(3128)
        self.ports[15001] = free_ports(1)[0]  # squid has the other
        self.start(15001, "redsocks", "-c", self.configuration("redsocks.conf"))

    def envoy(self) -> None:
        words = ("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
        self.start(15001, "envoy", *words, "-c", self.configuration("envoy.yaml"))

    def mitmproxy(self) -> None:
        os.rename(self.configuration("mitmproxy.yaml"), self.directory / "config.yaml")
        self.start(15001, "mitmdump", "--mode", "transparent", "--set", f"confdir={self.directory}")


#: Method of :class:`Running` -> the families of its listener, and what its rule needs.
KINDS = {
    "haproxy": (BOTH, {"sockname": True}),
    "nginx": (BOTH, {"sockname": True}),
    "envoy": (BOTH, {}),
    "mitmproxy": (BOTH, {}),
    "squid": (BOTH[:1], {}),
    "redsocks": (BOTH[:1], {}),
}
