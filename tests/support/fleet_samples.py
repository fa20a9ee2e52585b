# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockmap_info`` results of made-up hosts, as the report's tests need them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.build import build

WHEN = datetime(2026, 11, 22, 8, 30, tzinfo=timezone.utc)
KERNELS = ("6.1.0-28-amd64", "6.12.41+deb13-amd64", "6.18.2", "7.2.0-rc4")
#: Each is wrong in its way for JSON, XML, HTML or a table cell.
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "]]><!-- --><![CDATA[ &amp; &#60;b&#62;",
    "</script></style></textarea><svg onload=document.title='owned'>",
    "quote ' double \" back ` slash \\ {{ 7 * 7 }} {% raw %} $(id) ${x}",
    "line one\nline two\r\nline three\ttab",
    "\u202ereversed\u202c \u200bzero width \x00 null \x1b[31mred \ud800 lone \ufffe",
    "\u00fc\u00df \u65e5\u672c\u8a9e \u0639\u0631\u0628\u064a \U0001f600 e\u0301",
)

Result = Dict[str, Any]


def enabled(number: int = 0, **changes: Any) -> Result:
    """A host that is as its manifest says."""
    return {
        "enabled": True,
        "host": {"kernel": KERNELS[number % 4], "architecture": "x86_64", "distribution": "Debian 13"},
        "version": "1.0.0",
        "mode": "enforce",
        "cgroup": "sockredir.slice",
        "prerequisites": [{"name": "cgroup2", "ok": True, "found": "/sys/fs/cgroup", "needed": "mounted", "cure": ""}],
        "drift": [],
        "counters": {
            "redirected": {"messages": 1000 + number, "bytes": 65536 * (number + 1) ** 2},
            "no_peer": {"messages": number, "bytes": 64 * number},
        },
        "flows": {"open": number % 50},
        "ports": [port(6379, "accelerate", bytes=65536 * (number + 1) ** 2, gain=1.31)],
        "intercepts": None,
        **changes,
    }


def port(number: int, verdict: str, **changes: Any) -> Result:
    """What a host says of one server port."""
    return {
        "port": number,
        "verdict": verdict,
        "reasons": [],
        "programs": ["redis-server"],
        "connections": 12,
        "bytes": 0,
        "gain": None,
        "why": "redirected",
        "states": {},
        **changes,
    }


def intercepts(*listening: str, passed: int = 0, **changes: Any) -> Result:
    """What a host says of one interception rule.

    :param listening: at which of its two addresses the proxy listens.
    """
    to = ["127.0.0.1:15001", "[::1]:15001"]
    rule = {
        "name": "web",
        "cgroup": "sockredir.slice/sockredir-apps.slice",
        "proxy_cgroup": "sockredir.slice/sockredir-proxy.slice",
        "proxy_user": None,
        "to": to,
        "when_down": "refuse",
        "listening": {end: end in listening for end in to},
        "events": {"rewritten": 12, "claimed": 11, "answered": 11, "looped": 0, "unclaimed": 1},
        **changes,
    }
    note = {"kind": "nat_rule", "rule": "web", "found": "NAT is set", "cure": "remove it"}
    return {"rules": [rule], "notes": [note], "other": {"rewritten": 0, "passed": passed}, "pending": 1}


def drifted(number: int = 0, **changes: Any) -> Result:
    drift = {
        "kind": "settings_changed",
        "subject": "/sys/fs/bpf/sockredir/settings",
        "before": {"mode": "observe"},
        "after": {"mode": "enforce"},
    }
    gone = {"kind": "pin_missing", "subject": "/sys/fs/bpf/sockredir/verdict", "before": None, "after": {"id": 12}}
    return enabled(number, drift=[drift, gone], **changes)


def not_enabled(number: int = 0) -> Result:
    result = enabled(number, enabled=False, counters={}, version=None, mode=None)
    del result["flows"]
    return result


def unsupported(number: int = 0) -> Result:
    missing = {
        "name": "helper bpf_get_netns_cookie",
        "ok": False,
        "found": "kernel 5.10.0-32-amd64",
        "needed": "5.15",
        "cure": "boot a newer kernel",
    }
    return dict(
        not_enabled(number),
        prerequisites=[missing],
        host={"kernel": "5.10.0-32-amd64", "architecture": "x86_64", "distribution": "Debian 11"},
    )


def unreachable() -> Result:
    return {"unreachable": True, "msg": "Failed to connect to the host via ssh: Connection timed out"}


def failed() -> Result:
    return {"failed": True, "msg": "MODULE FAILURE: no python3", "module_stderr": "/bin/sh: 1: python3: not found\n"}


def fleet(size: int) -> List[Tuple[str, Optional[Result]]]:
    """A mixed fleet: of every 20 hosts two are drifted and one each is anything else but compliant."""
    makers = {3: drifted, 9: drifted, 5: not_enabled, 7: unsupported}
    hosts: List[Tuple[str, Optional[Result]]] = []
    for number in range(size):
        kind = number % 20
        result = unreachable() if kind == 11 else failed() if kind == 13 else makers.get(kind, enabled)(number)
        hosts.append((f"web{number}.example.com", result))
    return hosts


def hostile_fleet() -> List[Tuple[str, Optional[Result]]]:
    """Every text that a host or an inventory can choose is one of :data:`HOSTILE`, and one value has 10 MB."""
    hosts: List[Tuple[str, Optional[Result]]] = []
    for number, bad in enumerate(HOSTILE):
        drift = {"kind": bad, "subject": bad, "before": bad, "after": {bad: [bad]}}
        missing = {"name": bad, "ok": False, "found": bad, "needed": bad, "cure": bad}
        about = {"kernel": bad, "architecture": bad, "distribution": bad}
        counters = {bad: {"messages": 3, "bytes": 4}}
        hosts += [
            (f"a{number} {bad}", enabled(drift=[drift], host=about, version=bad, mode=bad, counters=counters)),
            (f"b{number} {bad}", dict(not_enabled(), prerequisites=[missing], advice=[{"risk": bad, "cure": bad}])),
            (f"c{number} {bad}", {"unreachable": True, "msg": bad}),
            (f"d{number} {bad}", {"failed": True, "msg": bad, "module_stderr": bad}),
        ]
    huge = "<b>&\u00fc\n" * (10_000_000 // 6)
    long_drift = [{"kind": huge, "subject": huge, "before": huge, "after": huge}] * 60
    return hosts + [
        (huge, enabled(drift=long_drift)),
        ("long error", {"failed": True, "msg": huge, "exception": huge}),
        ("nonsense", {"drift": "x", "prerequisites": [1, None], "counters": [], "host": 3, "flows": "y", "enabled": 1}),
        ("never asked", None),
    ]


def report_of(hosts: List[Tuple[str, Optional[Result]]], **options: Any) -> Dict[str, Any]:
    return build(hosts, WHEN, generator="1.0.0", **options)
