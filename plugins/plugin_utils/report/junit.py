# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet report as JUnit XML: one test case per host, for the systems that show those."""

from __future__ import annotations

from typing import Dict, List, Optional
from xml.etree import ElementTree

from .build import Report
from .host import Entry

#: How JUnit calls each status. A host that was never enabled, or cannot be, is not wrong: it is skipped.
_ELEMENTS: Dict[str, Optional[str]] = {
    "failed": "error",
    "unreachable": "error",
    "drifted": "failure",
    "unsupported": "skipped",
    "not_enabled": "skipped",
    "compliant": None,
}


def to_junit(report: Report) -> str:
    """The report as an XML document (str, with declaration); texts are already free of what XML forbids."""
    hosts = report["hosts"]
    totals = {"tests": str(len(hosts)), "failures": _count(hosts, "failure"), "errors": _count(hosts, "error")}
    root = ElementTree.Element("testsuites", {"name": report["title"], **totals})
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": report["title"],
            "timestamp": report["generated_at"],
            "skipped": _count(hosts, "skipped"),
            "time": "0",
            **totals,
        },
    )
    for host in hosts:
        _case(suite, host)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, host: Entry) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": "sockredir.audit", "name": host["name"], "time": "0"}
    )
    element = _ELEMENTS[host["status"]]
    if element:
        words = host["status"].replace("_", " ")
        problem = ElementTree.SubElement(
            case, element, {"type": host["status"], "message": f"{words}: {host['summary']}"}
        )
        problem.text = "\n".join(_lines(host))


def _lines(host: Entry) -> List[str]:
    lines = [
        f"{item['kind']} {item['subject']}: {_or_absent(item['before'])} -> {_or_absent(item['after'])}"
        for item in host["drift"]
    ]
    lines += [
        f"missing {item['name']}: found {item['found']}, needed {item['needed']}; {item['cure']}"
        for item in host["missing"]
    ]
    return lines + [part for part in (host["error"], host["error_detail"]) if part]


def _or_absent(value: Optional[str]) -> str:
    return "absent" if value is None else value


def _count(hosts: List[Entry], element: str) -> str:
    return str(sum(_ELEMENTS[host["status"]] == element for host in hosts))
