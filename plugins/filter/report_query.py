# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``ebpf.sockredir.report_query``."""

from __future__ import annotations

from typing import Any, Callable, Dict

from ansible.errors import AnsibleFilterError

from ..plugin_utils.report.query import QueryError, query


def report_query(report: Any, expression: str) -> Any:
    """The answer of a report to a JMESPath expression; see docs/queries.md."""
    try:
        return query(report, expression)
    except QueryError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> Dict[str, Callable]:
        return {"report_query": report_query}
