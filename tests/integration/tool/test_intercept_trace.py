# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl trace`` where connections are intercepted: both rings in one order of time, and programs that come."""

from __future__ import annotations

import re
import shutil
import socket
import time

from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import restore
from support.host import inside
from support.intercepting import Intercepting
from support.interception import FAR4, SOURCE, told
from support.tracing import Trace, traced_until
from support.waiting import wait_for

LINE = re.compile(r"(.{1,15})-\d+ \[\d{3}\] (\d+\.\d{6}): (.*)$")
#: In place of the header: programs that tell nothing, as those of an earlier version.
UNTOLD = """
#include "intercept_maps.h"
#define tell(...) do { } while (0)
#define happens(slot, event, ...) tally(slot, event)
"""


def traced(host: Intercepting) -> bool:
    return traced_until(host.managed.sandbox.pin_dir) > time.monotonic_ns()


def shown(lines: list) -> list:
    """What lines say after the moment."""
    parsed = [LINE.match(line) for line in lines]
    assert all(parsed), lines
    moments = [float(match[2]) for match in parsed]
    assert moments == sorted(moments)
    return [match[3] for match in parsed]


def test_both_tell_of_a_connection_in_their_order(enabled):
    host = Intercepting(enabled)
    host.load()
    with host.namer() as proxy, inside(host.apps):
        trace = Trace(enabled)
        wait_for(lambda: traced(host))
        host.write(host.rule(proxy.port))
        client = socket.create_connection((FAR4, 80))
        assert told(client)[0] == f"{FAR4} 80"
        assert socket.socket().connect_ex(("127.0.0.77", 9))
        code, lines, err = trace.end()
    assert (code, err) == (0, "")
    here, to = f"127.0.0.1:{client.getsockname()[1]}", f"127.0.0.1:{proxy.port}"
    client.close()
    found = shown(lines)
    assert found[0] == f"rewritten rule=web {here} --> {to} asked={FAR4}:80"
    assert found[-1] == "passed rule=- * --> 127.0.0.77:9"
    assert sorted(found[1:-1]) == [
        f"answered rule=web {here} --> {to} asked={FAR4}:80",
        f"claimed rule=web {here} --> {to} asked={FAR4}:80",
        f"ipv4 op=4 {here} --> {to}",
        f"ipv4 op=5 {to} --> {here}",
    ]
    assert traced_until(enabled.sandbox.pin_dir) == 0, "nobody wants them any more"


def test_programs_of_an_earlier_version_and_their_upgrade(managed, tmp_path):
    """They have no ring. Rules and live connections go on, and a running trace finds the new one."""
    managed.enable_here()
    host, earlier = Intercepting(managed), tmp_path / "earlier"
    shutil.copytree(SOURCE.parent, earlier)
    (earlier / "intercept_trace.h").write_text(UNTOLD)
    host.load(earlier / SOURCE.name)
    new = [managed.sandbox.pin_dir / name for name in ("intercept_ring", "intercept_trace")]
    with host.namer() as proxy:
        host.write(host.rule(proxy.port))
        rules = host.held()
        assert not any(pin.exists() for pin in new)
        trace = Trace(managed)
        wait_for(lambda: trace.rings() == 1)
        with host.connect() as live:
            host.load()
            assert told(live)[0] == f"{FAR4} 80"
        assert all(pin.exists() for pin in new)
        assert managed.kinds() == ["unfinished"]
        host.write(host.rule(proxy.port))
        assert (host.held(), managed.kinds()) == (rules, [])
        wait_for(lambda: trace.rings() == 2 and traced(host))
        assert host.asked() == f"{FAR4} 80"
        restore.rollback(managed.places["state_dir"])
        assert not any(pin.exists() for pin in new)
        assert (host.held(), managed.kinds()) == (rules, [])
        assert host.asked() == f"{FAR4} 80"
        wait_for(lambda: trace.rings() == 1)
        code, lines, err = trace.end()
    assert (code, err) == (0, "")
    assert [text.split()[0] for text in shown(lines) if "rule=web" in text] == ["rewritten", "claimed", "answered"]


def test_it_ends_by_count_whatever_the_lines_tell(enabled):
    host = Intercepting(enabled)
    host.load()
    with host.namer() as proxy:
        host.write(host.rule(proxy.port))
        trace = Trace(enabled, "--count", "2")
        wait_for(lambda: traced(host))
        host.asked()
        code, lines, _err = trace.end(None)
    assert (code, len(lines)) == (0, 2)
