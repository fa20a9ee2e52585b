# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy restarts while programs connect: none gets to a wrong place, and what need not be lost is not."""

from __future__ import annotations

import contextlib
import errno

import pytest
from support.connecting import DIRECT, Connecting, direct_server
from support.interception import Namer

GAPS, RELOADS = 8, 3
#: What a connection may meet while its proxy goes: it is refused, or it was in the queue of the listener that closed.
GOING = {errno.ECONNREFUSED, errno.ECONNRESET}


@contextlib.contextmanager
def load(intercepted, address):
    """This process stays in the programs' cgroup meanwhile; what is to be elsewhere moves there."""
    with intercepted.as_app(), Connecting(address) as own:
        yield own


def nothing_is_left(intercepted) -> None:
    assert intercepted.pending() == 0
    counts = intercepted.counts(1)
    assert counts["rewritten"] == counts["claimed"] + counts["withdrawn"]
    assert counts["lost"] == counts["unclaimed"] == 0


@pytest.mark.parametrize("direct", [False, True], ids=["refuse", "direct"])
def test_a_proxy_that_goes_and_comes_under_load(intercepted, direct):
    """Later ones listen in the programs' cgroup, where this process is meanwhile: that matters to nobody."""
    with direct_server() as address:
        with intercepted.as_proxy():
            proxy = Namer()
        intercepted.write(intercepted.rule(proxy.port, cidrs=("127.0.0.77/32",), direct_when_down=direct))
        right, down = f"127.0.0.77 {address[1]}", DIRECT if direct else "ECONNREFUSED"
        with load(intercepted, address) as programs:
            for _gap in range(GAPS):
                programs.wait_for(right)
                proxy.close()
                programs.wait_for(down)
                proxy = Namer(port=proxy.port)
            programs.wait_for(right)
        proxy.close()
        unexpected = set(programs.found) - {right, down, *(errno.errorcode[number] for number in GOING)}
    assert not unexpected, programs.found
    nothing_is_left(intercepted)


def test_several_listeners_at_one_port(intercepted):
    """All of them are used, and when one goes the others go on. Nobody is refused meanwhile."""
    with direct_server() as address:
        with intercepted.as_proxy():
            proxies = [Namer(shared=True)]
            port = proxies[0].port
            proxies += [Namer(port=port, shared=True) for _more in range(2)]
        intercepted.write(intercepted.rule(port, cidrs=("127.0.0.77/32",), direct_when_down=True))
        right = f"127.0.0.77 {address[1]}"
        with load(intercepted, address) as programs:
            programs.wait_for(right, 200)
            for proxy in proxies[:2]:
                proxy.close()
                programs.wait_for(right, 50)
        told_by = [proxy.told for proxy in proxies]
        proxies[2].close()
    assert set(programs.found) <= {right, "ECONNRESET"}, programs.found
    assert all(told_by), told_by
    nothing_is_left(intercepted)


def test_haproxy_reloads_and_no_connection_is_lost(intercepted, running):
    """The new process gets the listeners from the old one, which serves what it has to the end."""
    control = running.directory / "control"
    more = f"\nglobal\n    stats socket {control} expose-fd listeners\n"
    words = ("haproxy", "-db", "-f", running.configuration("haproxy.cfg", more))
    running_one = running.start(15001, *words)
    running.rule("127.0.0.1")
    with direct_server() as address, load(intercepted, address) as programs:
        for _reload in range(RELOADS):
            programs.wait_for(DIRECT)
            following = running.start(15001, *words, "-x", str(control), "-sf", str(running_one.pid))
            running_one.wait(60)
            running_one = following
        programs.wait_for(DIRECT)
    assert set(programs.found) == {DIRECT}
    nothing_is_left(intercepted)
