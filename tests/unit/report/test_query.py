# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to a report: answers, and errors that say where."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("jmespath", reason="jmespath is not installed")

from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report import query as module
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.report.query import QueryError, check, query

DATA = {"hosts": [{"name": "a", "flows": 3}, {"name": "b", "flows": None}]}


class TaggedStr(str):
    """Stands for Ansible's own subclasses, whose type names jmespath does not know."""


def test_answers():
    assert query(DATA, "hosts[?flows == `3`].name") == ["a"]
    assert query(DATA, "length(hosts)") == 2
    assert query(DATA, "nothing") is None
    assert query({TaggedStr("name"): TaggedStr("abc")}, TaggedStr("length(name)")) == 3


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "query '' at character 1: the expression is empty"),
        ("hosts[?", "query 'hosts[?' at character 8: the expression ends too early"),
        ("hosts[?name='a']", "query 'hosts[?name='a']' at character 12: Unknown token '='"),
        ("hosts..name", "query 'hosts..name' at character 7: unexpected '.'"),
        ("'abc", "query ''abc' at character 1: Unclosed ' delimiter"),
        ("hosts[].size(@)", "query 'hosts[].size(@)' at character 9: Unknown function: size()"),
        (
            "length(hosts[0].flows)",
            "query 'length(hosts[0].flows)' at character 1: length() takes string or array or object, not number",
        ),
        (
            "hosts | length(@, @)",
            "query 'hosts | length(@, @)' at character 9: Expected 1 argument for function length(), received 2",
        ),
        ("hosts[0:1:0]", "query 'hosts[0:1:0]': slice step cannot be zero"),
        ("a\n]", "query 'a ]' at character 3: unexpected ']'"),
        ("\x1b", "query '\\x1b' at character 1: Unknown token \\x1b"),
    ],
)
def test_errors_name_the_place_and_the_reason(expression, message):
    with pytest.raises(QueryError) as caught:
        query(DATA, expression)
    assert str(caught.value) == message


def test_a_wrong_form_shows_without_a_report():
    with pytest.raises(QueryError, match="at character 8: the expression ends too early"):
        check("hosts[?")
    # What a function makes of the report only the report tells.
    check("length(hosts[0].flows)")


@pytest.mark.parametrize("expression", ["[" * 10_000 + "]" * 10_000, "hosts" + "]" * 1_000_000])
def test_errors_are_short(expression):
    with pytest.raises(QueryError) as caught:
        query(DATA, expression)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


def test_an_expression_is_a_string():
    with pytest.raises(QueryError, match=r"a query is a JMESPath expression \(a string\), not list"):
        query(DATA, ["hosts"])


def test_without_jmespath(monkeypatch):
    monkeypatch.setattr(module, "jmespath", None)
    with pytest.raises(QueryError, match=r"needs the Python package jmespath .* pip install jmespath") as caught:
        query(DATA, "hosts")
    assert sys.executable in str(caught.value)
