# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interception rules as the operator writes them, in the form that the manifest keeps. Pure.

A dict: ``name``, ``cgroup`` (whose connections) and the services ``apps`` that are put there, ``proxy_cgroup`` and its
services ``proxy``, or ``proxy_user`` (who the proxy is), ``to`` (its
listener: a port, or addresses with ports), ``ports``, ``exclude_ports``, ``cidrs``, ``exclude_cidrs``, ``when_down``
(refuse, direct), ``answer`` (original_dst, sockname), ``udp_dns`` (as ``to``), ``inbound`` (ports that connections from
outside come to), and the ``slot`` of its counters. An earlier version wrote no ``inbound``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from ..errors import SockredirError
from . import intercept, intercept_doors
from .settings import networks, ranges

Rule = Dict[str, Any]
#: Id and level of a cgroup.
Place = Tuple[int, int]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_END = re.compile(r"(?:(?P<v4>[0-9.]+):|\[(?P<v6>[0-9A-Fa-f:.]+)\]:)?(?P<port>[0-9]+)")
_LISTS = ("ports", "exclude_ports", "cidrs", "exclude_cidrs", "to", "udp_dns", "answer", "inbound", "apps", "proxy")


def normal(
    rules: Sequence[Rule], before: Sequence[Rule] = (), lacks: Callable[[Rule], List[str]] = lambda _rule: []
) -> List[Rule]:
    """The canonical form of what was asked.

    :param before: the rules that hold: one of the same name keeps its slot.
    :param lacks: what a rule names that the host does not have, each in one line.
    :raises SockredirError: all that is wrong with them, in one line.
    """
    if len(rules) > intercept.MAX_RULES:
        raise SockredirError(f"rules: {len(rules)} of them, at most {intercept.MAX_RULES}", "join some")
    found: List[Rule] = []
    wrong: List[str] = []
    for rule in rules:
        try:
            found.append(_one({**rule, **{key: rule.get(key) or [] for key in _LISTS}}))
        except SockredirError as error:
            wrong.append(f"rule {rule.get('name')}: {error}")
        wrong += [f"rule {rule.get('name')}: {what}" for what in lacks(rule)]
    names = [rule["name"] for rule in found]
    wrong += [f"rule {name}: another rule has this name; names must be unique" for name in sorted(_twice(names))]
    wrong += _shared_inbound(found)
    wrong += _loops(found) if not wrong else []
    if wrong:
        raise SockredirError("; ".join(wrong))
    return _with_slots(found, before)


def _shared_inbound(rules: Sequence[Rule]) -> List[str]:
    """Ports that two rules have, and more of them than the map holds."""
    owner: Dict[int, str] = {}
    wrong: List[str] = []
    for rule in rules:
        for low, high in ranges(rule["inbound"], "inbound"):
            shared = [port for port in range(low, high + 1) if owner.setdefault(port, rule["name"]) != rule["name"]]
            wrong += [f"rule {rule['name']}: inbound: rule {owner[port]} has port {port} too" for port in shared[:1]]
    if len(owner) > intercept_doors.MAX_DOORS:
        wrong.append(f"inbound: {len(owner)} ports, at most {intercept_doors.MAX_DOORS} in all rules together")
    return wrong


def _twice(names: Sequence[str]) -> Set[str]:
    return {name for name in names if names.count(name) > 1}


def _one(rule: Rule) -> Rule:
    if not _NAME.fullmatch(str(rule["name"])):
        raise SockredirError("name: up to 32 letters, digits, '_', '.' and '-', a letter or digit first")
    if not rule.get("cgroup"):
        raise SockredirError("it does not say whose connections", "set cgroup, or apps")
    if not rule.get("proxy_cgroup") and rule.get("proxy_user") in (None, ""):
        raise SockredirError("it does not say who the proxy is", "set proxy_cgroup, proxy or proxy_user")
    if rule.get("proxy_cgroup") and is_below(rule["cgroup"], rule["proxy_cgroup"]):
        raise SockredirError(
            f"cgroup {rule['cgroup']} is in proxy_cgroup {rule['proxy_cgroup']}: it would never be intercepted",
            "give the proxy a cgroup of its own",
        )
    known = {
        "name": str(rule["name"]),
        "apps": rule["apps"],
        "cgroup": rule["cgroup"],
        "proxy": rule["proxy"],
        "proxy_cgroup": rule.get("proxy_cgroup") or None,
        "proxy_user": None if rule.get("proxy_user") in (None, "") else str(rule["proxy_user"]),
        "to": ends(rule["to"], "to", 1),
        "ports": _ports(rule["ports"], "ports"),
        "exclude_ports": _ports(rule["exclude_ports"], "exclude_ports"),
        "cidrs": networks(rule["cidrs"]),
        "exclude_cidrs": networks(rule["exclude_cidrs"]),
        "when_down": rule.get("when_down") or "refuse",
        "answer": sorted({"original_dst", *rule["answer"]}),
        "udp_dns": ends(rule["udp_dns"], "udp_dns", intercept.MAX_DNS),
        "inbound": _ports(rule["inbound"], "inbound"),
    }
    _refuse_inbound(known)
    if not known["to"] and not known["udp_dns"]:
        raise SockredirError("to: it is empty", "give the port that the proxy listens on")
    intercept.encode_rule(to_layout({**known, "slot": 1}, lambda _cgroup: (1, 1), lambda _user: 0, lambda: 0))
    return known


def _refuse_inbound(rule: Rule) -> None:
    taken = ranges(rule["inbound"], "inbound")
    if taken and not rule["to"]:
        raise SockredirError("inbound: to is empty", "give the port that the proxy listens on")
    own = [end.port for end in _ends(rule["to"]) if any(low <= end.port <= high for low, high in taken)]
    if own:
        raise SockredirError(f"inbound: {own[0]} is the port of the proxy itself", "name the ports of its servers")


def ends(texts: Iterable[object], option: str, most: int) -> List[str]:
    """Addresses with ports, IPv4 first; a port alone means both loopback addresses.

    :raises SockredirError: one is neither, or there are too many of one family.
    """
    found = [end for text in texts for end in _end(str(text).strip(), option)]
    for version in (4, 6):
        count = sum(ipaddress.ip_address(end.address).version == version for end in found)
        if count > most:
            raise SockredirError(f"{option}: {count} addresses of IPv{version}, at most {most}")
    ordered = sorted(found, key=lambda end: ipaddress.ip_address(end.address).version)
    return [end.text for end in ordered]


def _end(text: str, option: str) -> List[intercept.End]:
    match = _END.fullmatch(text)
    port = int(match["port"]) if match else 0
    if not match or not 1 <= port <= 65535:
        raise SockredirError(
            f"{option}: {text!r} is not a port from 1 to 65535, or an address with one",
            "write 15001, 127.0.0.1:15001 or [::1]:15001",
        )
    address = match["v4"] or match["v6"]
    return [intercept.End(one, port) for one in ([_address(address, option)] if address else ["127.0.0.1", "::1"])]


def _address(text: str, option: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise SockredirError(f"{option}: {error}") from error


def _ports(texts: Iterable[object], option: str) -> List[str]:
    return [str(low) if low == high else f"{low}-{high}" for low, high in ranges(texts, option)]


def is_below(path: str, other: str) -> bool:
    """Whether a cgroup is another one, or in it."""
    return (path.strip("/") + "/").startswith(other.strip("/") + "/") or not other.strip("/")


def _loops(rules: Sequence[Rule]) -> List[str]:
    """Proxies that hand a connection to each other for ever."""
    after = {
        one["name"]: [other["name"] for other in rules if one is not other and _hands_on(one, other)] for one in rules
    }
    return [
        f"rule {name}: its proxy's connections come back to it through other rules; exclude the proxy or its ports"
        for name in after
        if _reaches(name, name, after)
    ]


def _reaches(start: str, wanted: str, after: Dict[str, List[str]]) -> bool:
    seen: Set[str] = set()
    todo = list(after[start])
    while todo:
        name = todo.pop()
        if name == wanted:
            return True
        if name not in seen:
            seen.add(name)
            todo += after[name]
    return False


def _hands_on(one: Rule, other: Rule) -> bool:
    """Whether what goes to the proxy of one rule may be intercepted, from there, by the other."""
    proxy = one["proxy_cgroup"]
    if proxy is None:
        caught = is_below(one["cgroup"], other["cgroup"]) and one["proxy_user"] != other["proxy_user"]
    else:
        own = other["proxy_cgroup"]
        caught = is_below(proxy, other["cgroup"]) and not (own and is_below(proxy, own))
    return caught and _same_ports(one, other) and _same_networks(one, other)


def _same_ports(one: Rule, other: Rule) -> bool:
    mine, theirs = (ranges(rule["ports"] or ["1-65535"], "ports") for rule in (one, other))
    return any(a[0] <= b[1] and b[0] <= a[1] for a in mine for b in theirs)


def _same_networks(one: Rule, other: Rule) -> bool:
    mine, theirs = ([ipaddress.ip_network(text) for text in rule["cidrs"]] for rule in (one, other))
    if not mine or not theirs:
        return True
    return any(a.version == b.version and a.overlaps(b) for a in mine for b in theirs)


def _with_slots(rules: Sequence[Rule], before: Sequence[Rule]) -> List[Rule]:
    known = {rule["name"]: rule["slot"] for rule in before}
    taken = {known[rule["name"]] for rule in rules if rule["name"] in known}
    free = (slot for slot in range(1, intercept.MAX_RULES + 1) if slot not in taken)
    return [{**rule, "slot": known.get(rule["name"]) or next(free)} for rule in rules]


def to_layout(
    rule: Rule, place: Callable[[str], Place], user: Callable[[str], int], netns: Callable[[], int]
) -> intercept.Rule:
    """What is written into the map.

    :param place: id and level of a cgroup.
    :param user: id of a user by name or id.
    :param netns: cookie of the network namespace of the run.
    """
    apps, apps_level = place(rule["cgroup"])
    proxy, proxy_level = place(rule["proxy_cgroup"]) if rule["proxy_cgroup"] else (0, 0)
    return intercept.Rule(
        apps=apps,
        apps_level=apps_level,
        to=_ends(rule["to"]),
        slot=rule["slot"],
        proxy=proxy,
        proxy_level=proxy_level,
        proxy_user=None if rule["proxy_user"] is None else user(rule["proxy_user"]),
        ports=ranges(rule["ports"], "ports"),
        exclude_ports=ranges(rule["exclude_ports"], "exclude_ports"),
        cidrs=tuple(rule["cidrs"]),
        exclude_cidrs=tuple(rule["exclude_cidrs"]),
        dns=_ends(rule["udp_dns"]),
        direct_when_down=rule["when_down"] == "direct",
        sockname="sockname" in rule["answer"],
        inbound=ranges(rule.get("inbound") or [], "inbound"),
        netns=netns() if rule.get("inbound") else 0,
    )


def _ends(texts: Iterable[str]) -> Tuple[intercept.End, ...]:
    split = (text.rpartition(":") for text in texts)
    return tuple(intercept.End(address.strip("[]"), int(port)) for address, _colon, port in split)


#: What must be attached where programs are, and where their proxy is.
_APPS = ("connect4", "connect6", "claims", "getpeername4", "getpeername6")
_PROXY = ("connect4", "connect6", "claims", "getsockopt")
_DNS = ("sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6")
_NAMES = ("getsockname4", "getsockname6")


def needed(rule: Rule) -> Dict[str, List[str]]:
    """Cgroup -> the programs that a rule needs to be attached there."""
    dns = _DNS if rule["udp_dns"] else ()
    apps, proxy = [*_APPS, *dns], [*_PROXY, *dns[:2], *(_NAMES if "sockname" in rule["answer"] else ())]
    if not rule["proxy_cgroup"]:
        return {rule["cgroup"]: list(dict.fromkeys(apps + proxy))}
    return {rule["proxy_cgroup"]: proxy, rule["cgroup"]: apps}


def missing(rule: Rule, attached: Dict[str, List[str]]) -> Optional[str]:
    """Why a rule could not work: a program that is not attached, or twice; None if it can.

    :param attached: program -> the cgroups that it is attached to; of ``inbound`` this network namespace.
    """
    for cgroup, programs in needed(rule).items():
        places = {program: [at for at in attached.get(program, []) if is_below(cgroup, at)] for program in programs}
        lacking = [program for program, at in places.items() if not at]
        if lacking:
            return f"rule {rule['name']}: not attached to cgroup {cgroup}: {', '.join(lacking)}; use sockmap_attach"
        double = [program for program, at in places.items() if len(at) > 1]
        if double:
            outer = min(places[double[0]], key=len)
            return f"rule {rule['name']}: {double[0]} is attached to {outer} and again below it; detach one of them"
    if rule.get("inbound") and not attached.get("inbound"):
        return f"rule {rule['name']}: inbound is not attached to this network namespace; use sockmap_attach"
    return None
