# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters ``ebpf.sockredir.report_query`` and ``ebpf.sockredir.query_problem``."""

from __future__ import annotations

from typing import Any, Callable, Dict

from ansible.errors import AnsibleFilterError

from ..plugin_utils.report.query import QueryError, check, query


def report_query(report: Any, expression: str) -> Any:
    """The answer of a report to a JMESPath expression; see docs/queries.md."""
    try:
        return query(report, expression)
    except QueryError as error:
        raise AnsibleFilterError(str(error)) from None


def query_problem(expression: str) -> str:
    """What is wrong with a JMESPath expression, in one line; empty if it can be asked."""
    try:
        check(expression)
    except QueryError as error:
        return str(error)
    return ""


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> Dict[str, Callable]:
        return {"report_query": report_query, "query_problem": query_problem}
