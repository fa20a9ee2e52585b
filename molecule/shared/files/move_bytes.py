# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves bytes between plain processes of this host and tells, as JSON, which way they took.

Knows nothing of the collection but its tool's name: the loopback device's own counter says what crossed it.

    move_bytes.py [--trace]
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

IPERF3_PORT = 10000
# At a pace that an emulated reader on a busy machine keeps up with: one that falls far behind is rightly served by TCP.
IPERF3_LOAD = "-n 128M -b 200M -l 64k"
TRANSFER_SIZE = 64 << 20
CHUNK = 1 << 20
# So many chunks may be on their way.
AHEAD = 2
# Above that, bytes of a transfer crossed the loopback device.
NOTHING_OVER_LO = 1000000
# A reader that stood still for too long, as emulated ones do on a busy machine, is rightly served by TCP.
RIGHTLY_BY_TCP = ("ahead", "over_budget")
BY_TCP = (*RIGHTLY_BY_TCP, "no_peer", "no_flow", "sent_before", "demoted", "drained", "ulp", "refused")
TRIES = 5
EVENT = re.compile(r"^\S+-\d+ +\[\d{3}\] +\d+\.\d{6}: (ipv[46]) op=([45]) (\S+):(\d+) --> (\S+):(\d+)$")

ADDRESSES = {"ipv4": "127.0.0.1", "ipv6": "::1"}
# How each pair looks: where the server listens, where the client connects to.
PAIRS = {
    "ipv4": (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
    "ipv6": (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    "v4-mapped server": (socket.AF_INET6, "::", socket.AF_INET, "127.0.0.1"),
    "v4-mapped client": (socket.AF_INET, "127.0.0.1", socket.AF_INET6, "::ffff:127.0.0.1"),
    "v4-mapped on both": (socket.AF_INET6, "::", socket.AF_INET6, "::ffff:127.0.0.1"),
}


def over_lo() -> int:
    """Bytes that the loopback device has carried."""
    with open("/sys/class/net/lo/statistics/tx_bytes", encoding="ascii") as counter:
        return int(counter.read())


def iperf3(address: str) -> dict:
    """The pair that everybody tries first: a server that listens dual-stack, and a client."""
    server = subprocess.Popen(
        f"exec iperf3 -s -p {IPERF3_PORT} --one-off", shell=True, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for_listener(IPERF3_PORT)
        before = over_lo()
        client = subprocess.run(
            f"iperf3 -c {address} {IPERF3_LOAD} -p {IPERF3_PORT} --json",
            shell=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )
        report = json.loads(client.stdout)
        if "error" in report:
            raise SystemExit(f"iperf3 {address}: {report['error']}")
        received = report["end"]["sum_received"]["bytes"]
        return {"received": received, "over_lo": over_lo() - before}
    finally:
        server.kill()
        server.wait()


def wait_for_listener(port: int) -> None:
    """Until a socket listens on the port; looks instead of connecting, which would be an event."""
    wanted = f":{port:04X}"
    for _turn in range(600):
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with open(table, encoding="ascii") as lines:
                if any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines):
                    return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port} after 60 s")


def transfer(pair: str) -> dict:
    """Random bytes through one connection: their digests at both ends, and what the loopback device saw.

    The writer keeps near its reader: far ahead of it, the host's memory budget would rightly send it back to TCP.
    """
    server_family, listen, client_family, connect = PAIRS[pair]
    payload = os.urandom(CHUNK)
    sent = hashlib.sha256()
    received = {}
    may_send = threading.Semaphore(AHEAD)
    with socket.socket(server_family, socket.SOCK_STREAM) as listener:
        if server_family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.settimeout(60)
        listener.bind((listen, 0))
        listener.listen(1)
        before = over_lo()
        reader = threading.Thread(target=read_all, args=(listener, may_send, received))
        reader.start()
        with socket.socket(client_family, socket.SOCK_STREAM) as client:
            client.settimeout(60)
            client.connect((connect, listener.getsockname()[1]))
            for round_number in range(TRANSFER_SIZE // CHUNK):
                chunk = round_number.to_bytes(8, "big") + payload[8:]
                sent.update(chunk)
                if not may_send.acquire(timeout=60):
                    raise SystemExit(f"{pair}: the reader does not get on")
                client.sendall(chunk)
        reader.join(120)
    return {"sent": sent.hexdigest(), "received": received.get("digest"), "over_lo": over_lo() - before}


def read_all(listener: socket.socket, may_send: threading.Semaphore, received: dict) -> None:
    connection, _address = listener.accept()
    digest = hashlib.sha256()
    size = 0
    with connection:
        connection.settimeout(60)
        for part in iter(lambda: connection.recv(CHUNK), b""):
            digest.update(part)
            whole_chunks = (size + len(part)) // CHUNK - size // CHUNK
            size += len(part)
            for _turn in range(whole_chunks):
                may_send.release()
    received["digest"] = digest.hexdigest()


class Trace:
    """`sockredirctl trace` in the background."""

    def __enter__(self) -> Trace:
        self.tool = subprocess.Popen(
            ["sockredirctl", "trace", "--seconds", "300"], stdout=subprocess.PIPE, universal_newlines=True
        )
        self.lines = []
        threading.Thread(target=lambda: self.lines.extend(iter(self.tool.stdout.readline, "")), daemon=True).start()
        self._wait_until_it_sees()
        return self

    def __exit__(self, *_error) -> None:
        self.tool.terminate()
        self.tool.wait(30)

    def _wait_until_it_sees(self) -> None:
        """It starts in its own time: connections are made until one shows."""
        for _turn in range(60):
            transfer_nothing()
            time.sleep(1)
            if self.lines:
                return
            if self.tool.poll() is not None:
                raise SystemExit("sockredirctl trace ended")
        raise SystemExit("sockredirctl trace showed none of 60 connections")

    def events(self) -> list:
        """Family and operation of each event of iperf3's port, in the order of printing, and lines in another form."""
        # The last ones are on their way.
        time.sleep(3)
        found = []
        for line in list(self.lines):
            event = EVENT.match(line)
            if event is None:
                found.append(line)
            elif str(IPERF3_PORT) in (event.group(4), event.group(6)):
                found.append(f"{event.group(1)} op={event.group(2)}")
        self.lines.clear()
        return found


def transfer_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        listener.accept()[0].close()


def traced_iperf3(address: str, trace: Trace) -> dict:
    """iperf3 with its events, and how often it was left to TCP and why; once more where that was right."""
    for _turn in range(TRIES):
        before = messages()
        report = iperf3(address)
        report["events"] = trace.events()
        report["by_tcp"] = {why: grown for why, count in messages().items() if (grown := count - before[why])}
        if report["over_lo"] < NOTHING_OVER_LO or not any(why in report["by_tcp"] for why in RIGHTLY_BY_TCP):
            break
    return report


def messages() -> dict:
    """Reason -> count, of what went by TCP."""
    told = subprocess.run(["sockredirctl", "counters", "--json"], stdout=subprocess.PIPE, check=True)
    counted = json.loads(told.stdout)["counters"]
    return {why: each["messages"] for why, each in counted.items() if why in BY_TCP}


def main() -> None:
    report = {"transfers": {pair: transfer(pair) for pair in PAIRS}}
    if "--trace" in sys.argv:
        with Trace() as trace:
            report["iperf3"] = {family: traced_iperf3(address, trace) for family, address in ADDRESSES.items()}
    else:
        report["iperf3"] = {family: iperf3(address) for family, address in ADDRESSES.items()}
    json.dump(report, sys.stdout, indent=2)


main()
