# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredirctl verify``: prove by a real transfer that this host does what its mode says."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..datapath import layout, live, settings
from ..host import cgroups, mounts, proof
from . import context, speed, verify_intercepts

#: Which counter has to grow by the bytes of the transfer.
_COUNTED = {"enforce": "redirected", "observe": "would_redirect"}
#: Reasons that are not a fault of the set-up: the host has too much to do for one more connection.
_BUSY = ("over_budget", "skip_full")
_LO = "/sys/class/net/lo/statistics/tx_bytes"


def verify(state_dir: str, as_json: bool, with_speed: bool = False) -> int:
    """Show the proof.

    :param with_speed: whether to also compare plain TCP and redirection, for some seconds.
    :returns: the exit code: not 0 if the host does something other than its mode says.
    """
    report = prove(state_dir)
    report["intercepts"] = verify_intercepts.prove(context.enabled(state_dir))
    if with_speed:
        report["speed"] = speed.compare(state_dir)
    if as_json:
        context.show_json(report)
    else:
        context.show(
            text(report)
            + verify_intercepts.text(report["intercepts"])
            + (speed.text(report["speed"]) if with_speed else [])
        )
    wrong = report["wrong"] or any(each["wrong"] for each in report["intercepts"])
    return context.DIFFERS if wrong else context.OK


def prove(state_dir: str) -> Dict[str, Any]:
    """Transfer, and judge it by the mode of the manifest.

    :returns: ``mode``; ``pairs`` as :func:`.proof.transfer` returns them; ``lo_bytes`` that crossed the loopback device
        meanwhile, from any program; ``counters`` that grew, each with ``messages`` and ``bytes``; ``wrong``, in one
        line, or None; ``unproved``, the reason why it could not be tried, or None.
    :raises SockredirError: the host is not enabled, or the transfer could not be made.
    """
    document = context.enabled(state_dir)
    wanted = document["settings"]
    report: Dict[str, Any] = {"mode": wanted["mode"], "pairs": [], "wrong": None, "unproved": None}
    counted, crossed = live.counters(document["pin_dir"]) or {}, _lo_bytes()
    try:
        report["pairs"] = _transfer(document)
    except proof.NoFreePort as error:
        report["unproved"] = str(error)
    report["lo_bytes"] = _lo_bytes() - crossed
    report["counters"] = _grown(counted, live.counters(document["pin_dir"]) or {})
    wrong = None if report["unproved"] else proof.judge(wanted["mode"], report["pairs"]) or _miscounted(report)
    busy = [reason for reason in _BUSY if reason in report["counters"]]
    if wrong and busy and all(pair.get("intact", True) for pair in report["pairs"]):
        report["unproved"] = f"the host is at a limit ({', '.join(busy)}): {wrong}"
    else:
        report["wrong"] = wrong
    return report


def _transfer(document: Dict[str, Any]) -> List[Dict[str, Any]]:
    """See :func:`.proof.transfer`. Nothing is learned from it: its ports are no program's."""
    wanted, pin_dir = document["settings"], document["pin_dir"]
    known = live.ports(pin_dir) or {}
    pairs = proof.transfer(
        cgroups.resolve(context.accelerated(document), mounts.read()),
        settings.ranges(wanted["ports"], "ports"),
        settings.ranges(wanted["exclude_ports"], "exclude_ports"),
    )
    live.forget_ports(pin_dir, {pair["port"] for pair in pairs if "port" in pair} - known.keys())
    return pairs


def _lo_bytes() -> int:
    with open(_LO, encoding="ascii") as count:
        return int(count.read())


def _grown(before: Dict[str, layout.Count], after: Dict[str, layout.Count]) -> Dict[str, Dict[str, int]]:
    grown = {}
    for name, count in after.items():
        old = before.get(name, layout.Count(0, 0))
        if count.events > old.events:
            grown[name] = {"messages": count.events - old.events, "bytes": count.bytes - old.bytes}
    return grown


def _miscounted(report: Dict[str, Any]) -> Optional[str]:
    name = _COUNTED.get(report["mode"])
    sent = sum(pair["bytes"] for pair in report["pairs"] if "bytes" in pair)
    counted = report["counters"].get(name, {"bytes": 0})["bytes"]
    if name is None or counted >= sent:
        return None
    return f"{sent} bytes were sent, but the counter {name} grew by {counted}"


def text(report: Dict[str, Any]) -> List[str]:
    """The report for a person."""
    lines = []
    for pair in report["pairs"]:
        if "skipped" in pair:
            lines.append(f"{pair['pair']:<10} not tried: {pair['skipped']}")
        else:
            by_tcp = f"{context.size(pair['by_tcp'])} of them by TCP"
            state = "intact" if pair["intact"] else "DAMAGED"
            lines.append(f"{pair['pair']:<10} {context.size(pair['bytes'])} sent, {by_tcp}, {state}")
    verdict = report["wrong"] or report["unproved"] or f"as mode {report['mode']} says"
    return lines + [f"{'wrong' if report['wrong'] else 'not proved' if report['unproved'] else 'right'}: {verdict}"]
