# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Risks that an operator should know: kernel bugs around sockmap, programs that splice.

Bugs that crash cannot be tried out, so these go by version and by whether the feature is in use here. Distributions
backport fixes: the texts name the commit to look for. How sockets behave was tried out (:mod:`.facts`).
"""

from __future__ import annotations

import glob
import os
from typing import Any, Dict, List, Optional

from . import processes
from .facts import Facts
from .prerequisites import fionread_found, kernel_version, one_queue_found

#: Where an entry matters: whatever the cgroup, or only if the whole host is accelerated.
ANY, WHOLE_HOST = "any", "whole_host"

#: Of iSCSI targets of the kernel, each named by its address.
_ISCSI_PORTALS = "/sys/kernel/config/target/iscsi/*/*/np/*"

Advice = Dict[str, str]


def observe(found: Facts) -> Dict[str, Any]:
    """Facts for :func:`judge`.

    :param found: what :func:`.facts.observe` found.
    """
    return {
        **{name: found[name] for name in ("one_queue", "fionread")},
        "release": os.uname().release,
        "mptcp_sockets": _mptcp_sockets(),
        "ktls_sockets": _ktls_sockets(),
        "iscsi_portals": sorted({os.path.basename(path) for path in glob.glob(_ISCSI_PORTALS)}),
        "splicers": processes.splicers(),
    }


def _lines(path: str) -> List[List[str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return [line.split() for line in text]
    except OSError:
        return []


def _mptcp_sockets() -> int:
    return sum(int(line[2]) for line in _lines("/proc/net/protocols") if line[:1] and line[0] in ("MPTCP", "MPTCPv6"))


def _ktls_sockets() -> int:
    return sum(int(line[1]) for line in _lines("/proc/net/tls_stat") if line[:1] and line[0].startswith("TlsCurr"))


def judge(facts: Dict[str, Any]) -> List[Advice]:
    """What applies here, each with ``name``, ``found``, ``risk``, ``cure`` and ``scope``."""
    found = [rule(facts) for rule in (_mptcp, _ktls, _iscsi, _replace_race, _one_queue, _fionread, _splice)]
    return [advice for advice in found if advice]


def _advice(name: str, found: str, risk: str, cure: str, scope: str = ANY) -> Advice:
    return {"name": name, "found": found, "risk": risk, "cure": cure, "scope": scope}


def _mptcp(facts: Dict[str, Any]) -> Optional[Advice]:
    if kernel_version(facts["release"]) >= (6, 18) or not facts["mptcp_sockets"]:
        return None
    return _advice(
        "mptcp",
        f"{facts['mptcp_sockets']} MPTCP sockets on kernel {facts['release']}",
        "an MPTCP subflow in a sockmap can crash kernels without fbade4bd08ba (6.18)",
        "keep MPTCP programs out of the accelerated cgroup, or sysctl net.mptcp.enabled=0, or update the kernel",
    )


def _ktls(facts: Dict[str, Any]) -> Optional[Advice]:
    if kernel_version(facts["release"]) >= (7, 2) or not facts["ktls_sockets"]:
        return None
    return _advice(
        "ktls",
        f"{facts['ktls_sockets']} directions of kernel TLS on kernel {facts['release']}",
        "kernel TLS on a socket in a sockmap can crash kernels with CVE-2025-38166",
        "keep programs with kernel TLS out of the accelerated cgroup, or update the kernel",
    )


def _iscsi(facts: Dict[str, Any]) -> Optional[Advice]:
    if not facts["iscsi_portals"]:
        return None
    ports = sorted({portal.rpartition(":")[2] for portal in facts["iscsi_portals"]})
    return _advice(
        "iscsi_target",
        f"an iSCSI target of the kernel listens on {', '.join(facts['iscsi_portals'])}",
        "what it accepts gets into the map if it has been listening since before redirection was enabled, and breaks",
        f"exclude port {', '.join(ports)} (sockredir_exclude_ports)",
        WHOLE_HOST,
    )


def _replace_race(facts: Dict[str, Any]) -> Optional[Advice]:
    if kernel_version(facts["release"]) >= (6, 13):
        return None
    return _advice(
        "replace_race",
        f"kernel {facts['release']}",
        "replacing a sockmap element while its socket closes can crash kernels with CVE-2024-56664; the programs of"
        " this collection never replace one",
        "nothing for these programs; other sockmap programs on this host need the fix ed1fc5d76b81 (6.13)",
    )


def _one_queue(facts: Dict[str, Any]) -> Optional[Advice]:
    if facts["one_queue"]["ok"] is not False:
        return None
    return _advice(
        "one_queue",
        one_queue_found(facts),
        "this kernel cannot keep redirected bytes and those that come by TCP in one queue, so the program receive is"
        " not attached, and a direction that went to TCP stays there",
        "update the kernel to one with b40cc5adaa80",
    )


def _fionread(facts: Dict[str, Any]) -> Optional[Advice]:
    if facts["fionread"]["ok"] is not False:
        return None
    found = fionread_found(facts)
    return _advice(
        "fionread",
        found,
        f"on this kernel ioctl(FIONREAD) {found}: programs that size their reads by it may read late or never"
        " (nginx, Java, .NET)",
        "update the kernel, or exclude the server ports of such programs",
    )


def _splice(facts: Dict[str, Any]) -> Optional[Advice]:
    if not facts["splicers"]:
        return None
    return _advice(
        "splice",
        processes.list_names(facts["splicers"]),
        "these programs may splice(2) from TCP sockets, and splice never sees redirected bytes: the connection hangs"
        " (found by name and by Go's build note, so the list may be too long or too short)",
        "accelerate a slice instead of the whole host, or exclude their server ports",
        WHOLE_HOST,
    )
