# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host of a fleet report, built from the result of ``sockmap_info``."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional

from . import text

#: Worst first: the order in which a person wants to see them.
STATUSES = ("failed", "unreachable", "drifted", "unsupported", "not_enabled", "compliant")

#: How many drifts, missing prerequisites, warnings, ports, interception rules and counters are kept per host; the
#: number left out is in the entry.
ITEM_LIMIT = 40

#: What a rollout made of a host, worst first.
OUTCOMES = (
    "failed",
    "unreachable",
    "restored",
    "rolled_back",
    "cannot",
    "not_started",
    "enabled",
    "already",
)

Entry = Dict[str, Any]


def entry(host: str, result: Optional[Mapping[str, Any]], outcome: Optional[Mapping[str, Any]] = None) -> Entry:
    """One element of the report's ``hosts``.

    :param host: str, the inventory's name of the host.
    :param result: what was registered for the host's ``sockmap_info`` task; None if it never ran there.
    :param outcome: in a rollout ``{"outcome", "batch", "why"}``; else None.
    :returns: dict, as docs/report-schema.md says: every key is always there.
    """
    result = _mapping(result)
    found = {
        "name": text.name(host),
        **_about(result),
        **_limited("drift", _rows(result.get("drift"), _drift)),
        **_limited("missing", _rows(result.get("prerequisites"), _missing)),
        **_limited(
            "warnings",
            _rows(result.get("advice"), _advice) + _notes(result) + _rows(result.get("unreadable"), _unreadable),
        ),
        "counters": _counters(result.get("counters")),
        "flows_open": _flows_open(result),
        **_limited("ports", _rows(result.get("ports"), _port)),
        **_limited("intercepts", _intercepts(_mapping(result.get("intercepts")))),
        "draining": len(_sequence(result.get("draining"))),
        "error": None,
        "error_detail": None,
        "rollout": _rollout(outcome) if outcome else None,
    }
    found["status"] = _status(result, found)
    if found["status"] in ("failed", "unreachable"):
        found["error"], found["error_detail"] = _error(result)
    found["summary"] = _SUMMARIES[found["status"]](found)
    return found


def _status(result: Mapping[str, Any], found: Entry) -> str:
    if result.get("unreachable"):
        return "unreachable"
    if not result or result.get("failed"):
        return "failed"
    if found["drift"]:
        return "drifted"
    if result.get("enabled"):
        return "compliant"
    if result.get("enabled") is None:
        return "failed"  # it answered, but may not look
    # What is missing for compiling there, or for surviving a reboot, keeps no host from being enabled.
    return "unsupported" if any(item["scope"] == "load" for item in found["missing"]) else "not_enabled"


def _rollout(outcome: Mapping[str, Any]) -> Dict[str, Any]:
    why = outcome.get("why")
    return {"outcome": outcome["outcome"], "batch": outcome.get("batch"), "why": text.line(why) if why else None}


def _about(result: Mapping[str, Any]) -> Dict[str, Optional[str]]:
    host = _mapping(result.get("host"))
    values = {key: host.get(key) for key in ("kernel", "architecture", "distribution")}
    values.update({key: result.get(key) for key in ("version", "mode", "cgroup")})
    return {key: text.name(value) if value else None for key, value in values.items()}


def _drift(item: Mapping[str, Any]) -> Dict[str, Optional[str]]:
    return {
        "kind": text.name(item.get("kind", "unknown")),
        "subject": text.line(item.get("subject", "")),
        "before": _value(item.get("before")),
        "after": _value(item.get("after")),
    }


def _missing(item: Mapping[str, Any]) -> Optional[Dict[str, str]]:
    if item.get("ok"):
        return None
    return {
        "name": text.name(item.get("name") or ""),
        **{key: text.line(item.get(key) or "") for key in ("found", "needed", "cure")},
        "scope": text.name(item.get("scope") or "load"),
    }


def _advice(item: Mapping[str, Any]) -> str:
    return text.line(f"{item.get('risk')}; {item.get('cure')}")


def _notes(result: Mapping[str, Any]) -> List[str]:
    return _rows(_mapping(result.get("intercepts")).get("notes"), _note)


def _note(item: Mapping[str, Any]) -> str:
    subject = f"interception rule {item['rule']}" if item.get("rule") else "interception"
    return text.line(f"{subject}: {item.get('found')}; {item.get('cure')}")


def _unreadable(item: Mapping[str, Any]) -> str:
    return text.line(f"could not be read: {item.get('what')}: {item.get('why')}")


def _value(value: Any) -> Optional[str]:
    return None if value is None else text.block(value)


def _counters(value: Any) -> Dict[str, Dict[str, int]]:
    known = list(_mapping(value).items())[:ITEM_LIMIT]
    return {
        text.name(reason): {unit: _count(_mapping(count).get(unit)) for unit in ("messages", "bytes")}
        for reason, count in known
    }


def _port(item: Mapping[str, Any]) -> Dict[str, Any]:
    gain = item.get("gain")
    return {
        "port": _count(item.get("port")),
        "verdict": text.name(item.get("verdict") or ""),
        "programs": [text.name(name) for name in _sequence(item.get("programs"))[:ITEM_LIMIT]],
        "connections": _count(item.get("connections")),
        "bytes": _count(item.get("bytes")),
        "gain": gain if isinstance(gain, (int, float)) else None,
        "why": text.line(item.get("why") or ""),
    }


def _intercepts(found: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """An element for each rule, and one without a name for connections that no rule matches."""
    rules = _rows(found.get("rules"), _intercept)
    other = _events(found.get("other"))
    return rules + ([{**_intercept({}), "rule": None, "events": other}] if any(other.values()) else [])


def _intercept(rule: Mapping[str, Any]) -> Dict[str, Any]:
    user = rule.get("proxy_user")
    ends = list(_mapping(rule.get("listening")).items())[:ITEM_LIMIT]
    return {
        "rule": text.name(rule.get("name") or ""),
        "cgroup": text.name(rule.get("cgroup") or ""),
        "proxy": text.name(rule.get("proxy_cgroup") or (f"user {user}" if user else "")),
        "when_down": text.name(rule.get("when_down") or ""),
        "listening": [text.name(end) for end, there in ends if there],
        "not_listening": [text.name(end) for end, there in ends if not there],
        "events": _events(rule.get("events")),
    }


def _events(value: Any) -> Dict[str, int]:
    known = list(_mapping(value).items())[:ITEM_LIMIT]
    return {text.name(event): _count(count) for event, count in known}


def _flows_open(result: Mapping[str, Any]) -> Optional[int]:
    flows = result.get("flows")
    if isinstance(flows, Mapping):
        return _count(flows.get("open"))
    return len(flows) if isinstance(flows, (list, tuple)) else None


def _error(result: Mapping[str, Any]) -> List[Optional[str]]:
    hidden = _rows(result.get("unreadable"), _unreadable)
    message = result.get("msg") or "; ".join(hidden) or "no answer: the host was not asked, or its task did not end"
    detail = result.get("module_stderr") or result.get("exception") or result.get("log")
    return [text.line(message), _value(detail)]


_SUMMARIES: Dict[str, Callable[[Entry], str]] = {
    "compliant": lambda found: "as its manifest says",
    "not_enabled": lambda found: "could be enabled, nothing of this collection is installed",
    "unsupported": lambda found: _names("missing", [item["name"] for item in found["missing"]]),
    "drifted": lambda found: _names("differs", [f"{item['kind']} {item['subject']}" for item in found["drift"]]),
    "unreachable": lambda found: found["error"],
    "failed": lambda found: found["error"],
}


def _names(word: str, names: List[str]) -> str:
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return text.line(f"{word}: {shown}{more}")


def _limited(key: str, items: List[Any]) -> Dict[str, Any]:
    return {key: items[:ITEM_LIMIT], f"{key}_omitted": max(0, len(items) - ITEM_LIMIT)}


def _rows(value: Any, shape: Callable[[Mapping[str, Any]], Any]) -> List[Any]:
    rows = (shape(item) for item in _sequence(value) if isinstance(item, Mapping))
    return [row for row in rows if row is not None]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> List[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
