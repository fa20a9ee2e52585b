# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from hosts: everything in it can be seen, and none of it is long."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report import text
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.junit import to_junit
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.page import to_page
from support.fleet_samples import HOSTILE, fleet, hostile_fleet, report_of


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("<b>&\"'", "<b>&\"'"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31m\x00\x7f\x85\r", "\\x1b[31m\\x00\\x7f\\x85\\r"),
        ("\u202eabc\u2066\ufeff\u200b", "\\u202eabc\\u2066\\ufeff\\u200b"),
        ("\ud800\udfff", "\\ud800\\udfff"),
        ("\ufffe\uffff\ufdd0\U0001ffff", "\\ufffe\\uffff\\ufdd0\\U0001ffff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\u00fc \u65e5\u672c \U0001f468\u200d\U0001f469", "\u00fc \u65e5\u672c \U0001f468\u200d\U0001f469"),
        (b"bytes \xff", "bytes \\xff"),
        ({"b": 1, "a": ["\u00fc"]}, '{"a": ["\u00fc"], "b": 1}'),
        (datetime(2026, 1, 2, tzinfo=timezone.utc), '"2026-01-02 00:00:00+00:00"'),
        (True, "true"),
    ],
)
def test_block(value, shown):
    assert text.block(value) == shown


def test_what_is_left_out_is_counted():
    assert text.block("x" * 1500) == "x" * 1000 + "\u2026 [1,000 of 1,500 characters shown]"
    assert text.block("x" * 1000) == "x" * 1000
    assert text.line("a b " * 2_500_000).endswith("\u2026 [300 of 10,000,000 characters shown]")
    assert "\n" not in text.line("a\nb " * 1000)


def test_line_joins_white_space():
    assert text.line("  one\n\n two\tthree \r\n") == "one two three"


def is_xml_char(char: str) -> bool:
    code = ord(char)
    return code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF


@pytest.mark.parametrize("bad", HOSTILE)
def test_every_text_fits_every_format(bad):
    for made in (text.block(bad), text.line(bad), text.name(bad)):
        assert all(map(is_xml_char, made))
        made.encode("utf-8")


def test_junit_of_a_mixed_fleet():
    suite = ElementTree.fromstring(to_junit(report_of(fleet(20)))).find("testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "20",
        "failures": "2",
        "errors": "2",
        "skipped": "2",
    }
    cases = {case.get("name"): case for case in suite}
    drift = cases["web3.example.com"].find("failure")
    assert drift.get("type") == "drifted"
    assert '/sys/fs/bpf/sockredir/settings: {"mode": "observe"} -> {"mode": "enforce"}' in drift.text
    assert "/sys/fs/bpf/sockredir/verdict: absent -> " in drift.text
    skipped = cases["web7.example.com"].find("skipped")
    assert skipped.get("message") == "unsupported: missing: helper bpf_get_netns_cookie"
    assert cases["web5.example.com"].find("skipped").get("type") == "not_enabled"
    assert cases["web11.example.com"].find("error").get("type") == "unreachable"
    assert "python3: not found" in cases["web13.example.com"].find("error").text
    assert len(cases["web0.example.com"]) == 0


def test_junit_carries_hostile_text_as_it_was_shown():
    report = report_of(hostile_fleet())
    document = to_junit(report)
    assert len(document) < 500_000
    cases = list(ElementTree.fromstring(document.encode("utf-8")).iter("testcase"))
    assert [case.get("name") for case in cases] == [host["name"] for host in report["hosts"]]


class Elements(HTMLParser):
    """Collects the elements and, per element, its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


def test_the_page_holds_hostile_text_as_text():
    elements = parsed(to_page(report_of(hostile_fleet())))
    assert {"img", "textarea", "iframe"}.isdisjoint(tag for tag, _attributes in elements.tags)
    assert [tag for tag, _attributes in elements.tags].count("script") == 1
    assert not [name for _tag, attributes in elements.tags for name in attributes if name.startswith("on")]
    shown = "".join(elements.text)
    for bad in HOSTILE:
        assert text.line(bad) in shown


def test_the_page_takes_nothing_from_outside():
    page = to_page(report_of(fleet(20)))
    attributes = [pair for _tag, found in parsed(page).tags for pair in found.items()]
    assert not [pair for pair in attributes if pair[0] in ("src", "href", "style", "action")]
    policy = next(value for _name, value in attributes if value and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http:" not in page
    assert "https:" not in page


def test_json_needs_no_special_reader():
    report = report_of(hostile_fleet())
    assert json.loads(json.dumps(report, ensure_ascii=False).encode("utf-8")) == report
