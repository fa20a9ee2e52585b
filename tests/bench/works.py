# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All works, in the order of the report."""

from __future__ import annotations

from typing import List

from .proxies import proxy_works
from .servers import nginx, pgbench, redis
from .traffic import iperf3, sockbench, sockperf
from .work import VETH, Work

#: Parts of the whole that can be run one by one; each takes a few minutes.
GROUPS = {
    "small": "one way up to 16 KiB",
    "large": "one way from 24 KiB on",
    "requests": "request/response of 64 B and 4 KiB, connect-request-close, pings beside a slow reader",
    "iperf3": "iperf3 in several ways",
    "redis": "redis-benchmark",
    "servers": "pgbench; nginx with wrk",
    "intercept": "redis-benchmark and wrk through HAProxy and Envoy, which connections come to in several ways",
    "more": "request/response of other sizes and with 200 connections, one way from a process with two threads, "
    "sockperf, connections that are not local",
}
_SMALL = (64, 1024, 4096, 16384)
_LARGE = (24576, 32768, 49152, 65536, 131072, 262144)
_IPERF3 = {"": "-default", "-l 64k": "", "-R": "-R", "-P 8": "-P8", "-Z": "-Z", "--bidir": "-bidir"}


def all_works() -> List[Work]:
    works = [sockbench("rr", size, "requests" if size in (64, 4096) else "more") for size in (*_SMALL, 65536)]
    works += [sockbench("rr", 64, "more", 200, id_more="-200", title_more=", 200 connections")]
    works += [sockbench("stream", size, "small") for size in _SMALL]
    works += [sockbench("stream", size, "large") for size in _LARGE]
    works += [sockbench("threaded", size, "more") for size in _SMALL]
    works += [sockbench("crr", 64, "requests"), sockbench("pings", 64, "requests")]
    works += [iperf3(options, more) for options, more in _IPERF3.items()]
    works += [sockperf("more")]
    works += [redis(operation, size) for operation in ("set", "get") for size in (64, 4096)]
    works += [pgbench()]
    works += [nginx(size, sendfile) for sendfile in (False, True) for size in (128, 1000000)]
    not_local = {"place": VETH, "id_more": "-veth", "title_more": ", not local"}
    works += [sockbench(kind, size, "more", **not_local) for kind, size in (("rr", 64), ("stream", 65536), ("crr", 64))]
    return [*works, *proxy_works()]
