# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet report as one HTML page that needs nothing else and runs nothing but its own script.

The page is whole without the script (all hosts, all details); the script sorts, filters and folds. The content
security policy lets only that script and that style sheet in, by their digests, and nothing from outside.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from .build import Report, one_line
from .host import STATUSES, Entry

#: Rows of a distribution that are drawn; the rest is one row.
_BARS = 8

_LABELS: Dict[str, str] = {
    "failed": "failed",
    "unreachable": "unreachable",
    "drifted": "drifted",
    "unsupported": "unsupported",
    "not_enabled": "not enabled",
    "compliant": "compliant",
}
_COLUMNS = (
    ("host", "Host", "text"),
    ("status", "Status", "number"),
    ("kernel", "Kernel", "text"),
    ("version", "Version", "text"),
    ("mode", "Mode", "text"),
    ("redirected", "Redirected", "number"),
    ("flows", "Flows", "number"),
    ("summary", "What", "text"),
)


def to_page(report: Report) -> str:
    """The report as a complete HTML document (str)."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<title>{escape(report['title'])}</title>\n<style>{style}</style>\n</head>\n<body>\n",
            _header(report),
            "<main>\n",
            _totals(report),
            _rollout(report["rollout"]),
            _overview(report),
            _hosts(report["hosts"]),
            f"</main>\n<script>{script}</script>\n</body>\n</html>\n",
        ]
    )


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _digest(source: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


def _header(report: Report) -> str:
    version = f", collection {escape(report['generator'])}" if report["generator"] else ""
    return (
        f"<header>\n<h1>{escape(report['title'])}</h1>\n<p>{escape(one_line(report))}</p>\n"
        f'<p class="quiet"><time datetime="{escape(report["generated_at"])}">{escape(report["generated_at"])}</time>'
        f"{version}</p>\n</header>\n"
    )


def _totals(report: Report) -> str:
    totals = report["totals"]
    tiles = "".join(
        f'<button type="button" class="tile {status}" data-status="{status}" aria-pressed="false">'
        f"<b>{totals[status]:,}</b> {_LABELS[status]}</button>\n"
        for status in STATUSES
    )
    return f'<section aria-label="Totals">\n<div class="tiles">\n{tiles}</div>\n{_stack(totals)}</section>\n'


def _stack(totals: Mapping[str, int]) -> str:
    """All hosts as one bar, divided by status; widths are attributes, as the policy forbids inline styles."""
    whole = totals["hosts"] or 1
    parts, left = [], 0.0
    for status in STATUSES:
        width = 1000 * totals[status] / whole
        parts.append(
            f'<rect class="{status}" x="{left:.2f}" width="{width:.2f}" height="10">'
            f"<title>{totals[status]} {_LABELS[status]}</title></rect>"
        )
        left += width
    view = 'viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true"'
    return f'<svg class="stack" {view}>{"".join(parts)}</svg>\n'


def _rollout(rollout: Optional[Mapping[str, Any]]) -> str:
    if not rollout:
        return ""
    facts = {
        "State": f"{rollout['state']}: {rollout['why']}" if rollout["why"] else rollout["state"],
        "Failure budget": f"{rollout['spent']} of {rollout['budget']} hosts spent",
        "Batches": rollout["batches"],
        "Hosts": ", ".join(f"{n:,} {outcome.replace('_', ' ')}" for outcome, n in rollout["totals"].items() if n),
    }
    rows = "".join(f"<dt>{label}</dt><dd>{escape(str(value))}</dd>" for label, value in facts.items())
    return f'<section class="card"><h2>Rollout</h2><dl class="facts">{rows}</dl></section>\n'


def _overview(report: Report) -> str:
    distributions = report["distributions"]
    cards = [
        _bars("What drifted", report["drift_kinds"], report["totals"]["hosts"]),
        _bars("What is missing", report["missing"], report["totals"]["hosts"]),
        _bars("Kernels", distributions["kernel"], report["totals"]["hosts"]),
        _bars("Distributions", distributions["distribution"], report["totals"]["hosts"]),
        _bars("Installed versions", distributions["version"], report["totals"]["hosts"]),
        _bars("Modes", distributions["mode"], report["totals"]["hosts"]),
        _counters("Counters of all hosts", report["counters"]),
    ]
    return f'<section class="cards" aria-label="Distributions">\n{"".join(cards)}</section>\n'


def _bars(title: str, items: Sequence[Mapping[str, Any]], whole: int) -> str:
    known = [item for item in items if item["value"] is not None]
    if not known:
        return ""
    rows = [(str(item["value"]), item["hosts"]) for item in known[:_BARS]]
    if len(known) > _BARS:
        rows.append((f"{len(known) - _BARS} more", sum(item["hosts"] for item in known[_BARS:])))
    unknown = sum(item["hosts"] for item in items if item["value"] is None)
    note = f'<p class="quiet">not known: {unknown:,}</p>' if unknown else ""
    bars = "".join(_bar(*row, whole) for row in rows)
    return f'<div class="card"><h2>{escape(title)}</h2><ul class="bars">{bars}</ul>{note}</div>\n'


def _bar(label: str, hosts: int, whole: int) -> str:
    width = 100 * hosts / (whole or 1)
    return (
        f'<li><span title="{escape(label)}">{escape(label)}</span> <b class="number">{hosts:,}</b>'
        f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect width="{width:.2f}" height="8"/>'
        "</svg></li>"
    )


def _counters(title: str, counters: Mapping[str, Mapping[str, int]]) -> str:
    used = {reason: count for reason, count in counters.items() if count["messages"]}
    if not used:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(reason)}</th><td class="number">{count["messages"]:,}</td>'
        f'<td class="number" title="{count["bytes"]:,} bytes">{_size(count["bytes"])}</td></tr>'
        for reason, count in used.items()
    )
    head = '<tr><th>Reason</th><th class="number">Messages</th><th class="number">Bytes</th></tr>'
    return f'<div class="card"><h2>{escape(title)}</h2><table class="plain">{head}{rows}</table></div>\n'


def _hosts(hosts: Sequence[Entry]) -> str:
    head = "".join(
        f'<th scope="col" data-column="{key}" data-type="{kind}"><button type="button">{label}</button></th>'
        for key, label, kind in _COLUMNS
    )
    kernels = "".join(
        f"<option>{escape(kernel)}</option>" for kernel in sorted({h["kernel"] for h in hosts if h["kernel"]})
    )
    statuses = "".join(f'<option value="{status}">{_LABELS[status]}</option>' for status in STATUSES)
    return (
        '<section aria-label="Hosts">\n<h2>Hosts</h2>\n<div class="tools">\n'
        '<label>Find <input id="find" type="search" placeholder="host, pin, message" autocomplete="off"></label>\n'
        f'<label>Status <select id="status"><option value="">all</option>{statuses}</select></label>\n'
        f'<label>Kernel <select id="kernel"><option value="">all</option>{kernels}</select></label>\n'
        '<button type="button" id="unfold">Show all details</button>\n'
        f'<output id="shown">{len(hosts):,} of {len(hosts):,} hosts</output>\n</div>\n'
        f'<table id="hosts">\n<thead><tr>{head}</tr></thead>\n{"".join(map(_host, hosts))}</table>\n'
        '<p id="none" hidden>No host matches.</p>\n</section>\n'
    )


def _host(host: Entry) -> str:
    moved = host["counters"].get("redirected", {"messages": 0, "bytes": 0})["bytes"]
    status = host["status"]
    details = _details(host)
    fold = f'<button type="button" class="fold" aria-expanded="true"><span>{escape(host["name"])}</span></button>'
    cells = "".join(
        [
            f'<th scope="row">{fold if details else escape(host["name"])}</th>',
            f'<td data-sort="{STATUSES.index(status)}"><span class="pill {status}">{_LABELS[status]}</span></td>',
            *(f"<td>{escape(host[key] or '')}</td>" for key in ("kernel", "version", "mode")),
            f'<td class="number" data-sort="{moved}" title="{moved:,} bytes">{_size(moved) if moved else ""}</td>',
            f'<td class="number" data-sort="{host["flows_open"] or 0}">{_number(host["flows_open"])}</td>',
            f'<td class="what">{escape(host["summary"])}</td>',
        ]
    )
    row = f'<tr class="row">{cells}</tr>'
    if details:
        row += f'<tr class="detail"><td colspan="{len(_COLUMNS)}">{details}</td></tr>'
    return f'<tbody data-status="{status}">{row}</tbody>\n'


def _details(host: Entry) -> str:
    parts = []
    if host["rollout"]:
        parts.append(f"<p>{escape(_outcome(host['rollout']))}</p>")
    if host["error"]:
        parts.append(f'<p class="error">{escape(host["error"])}</p>')
    if host["error_detail"]:
        parts.append(f"<pre>{escape(host['error_detail'])}</pre>")
    if host["drift"]:
        rows = [(d["kind"], d["subject"], d["before"], d["after"]) for d in host["drift"]]
        heads = ("Difference", "Where", "Found (before)", "Enable would make it (after)")
        parts.append(_table(heads, rows, host["drift_omitted"]))
    if host["missing"]:
        rows = [(m["name"], m["found"], m["needed"], m["cure"]) for m in host["missing"]]
        parts.append(_table(("Missing", "Found", "Needed", "Cure"), rows, host["missing_omitted"]))
    parts.extend(f'<p class="warning">{escape(warning)}</p>' for warning in host["warnings"])
    if host["draining"]:
        parts.append(f'<p class="warning">{host["draining"]} old program(s) still drain</p>')
    parts.append(_counters("Counters", host["counters"]))
    return "".join(parts)


def _outcome(rollout: Mapping[str, Any]) -> str:
    batch = f", batch {rollout['batch']}" if rollout["batch"] else ""
    why = f": {rollout['why']}" if rollout["why"] else ""
    return f"Rollout: {rollout['outcome'].replace('_', ' ')}{batch}{why}"


def _table(heads: Iterable[str], rows: Iterable[Sequence[Optional[str]]], omitted: int = 0) -> str:
    head = "".join(f"<th>{escape(label)}</th>" for label in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    more = f'<p class="quiet">and {omitted:,} more</p>' if omitted else ""
    return f'<table class="plain">\n<tr>{head}</tr>{body}</table>{more}'


def _cell(value: Optional[str]) -> str:
    return '<td class="quiet">absent</td>' if value is None else f"<td><code>{escape(value)}</code></td>"


def _number(value: Optional[int]) -> str:
    return "" if value is None else f"{value:,}"


def _size(count: int) -> str:
    """Bytes in the largest unit that leaves one digit or more: ``1.2 GiB``."""
    units: List[str] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    size, unit = float(count), 0
    while size >= 1024 and unit < len(units) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count:,} B" if unit == 0 else f"{size:,.1f} {units[unit]}"
