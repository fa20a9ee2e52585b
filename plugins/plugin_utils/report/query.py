# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JMESPath questions to a report."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Callable, Optional

from . import text

try:
    import jmespath
    from jmespath import exceptions
except ImportError:
    jmespath = None


class QueryError(Exception):
    """Why a question has no answer; str() is one line."""


def query(data: Any, expression: str) -> Any:
    """The answer to a JMESPath expression.

    :param data: any JSON-able value, mostly a report.
    :param expression: str, see docs/queries.md.
    :raises QueryError: jmespath is not installed, or the expression is wrong (the line says at which character).
    """
    # jmespath compares type names; a round trip makes Ansible's own subclasses of str, list and dict plain again.
    return _answer(expression, lambda compiled: compiled.search(json.loads(json.dumps(data))))


def check(expression: str) -> None:
    """See whether an expression can be asked at all, before anybody is; what its functions meet is for :func:`query`.

    :raises QueryError: as :func:`query`.
    """
    _answer(expression, lambda _compiled: None)


def _answer(expression: str, ask: Callable[[Any], Any]) -> Any:
    if jmespath is None:
        raise QueryError(
            f"a query needs the Python package jmespath on the controller, which {sys.executable} does not have;"
            " install it there: pip install jmespath"
        )
    if not isinstance(expression, str):
        raise QueryError(f"a query is a JMESPath expression (a string), not {type(expression).__name__}")
    try:
        return ask(jmespath.compile(str(expression)))
    except (exceptions.JMESPathError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise QueryError(_explain(error, expression)) from None


def _explain(error: Exception, expression: str) -> str:
    position = _position(error, expression)
    where = "" if position is None else f" at character {position + 1}"
    return f"query '{text.line(expression, 200)}'{where}: {text.line(_reason(error))}"


def _position(error: Exception, expression: str) -> Optional[int]:
    if isinstance(error, exceptions.EmptyExpressionError):
        return 0
    if isinstance(error, exceptions.IncompleteExpressionError):
        return len(expression)
    for attribute in ("lexer_position", "lex_position"):
        if isinstance(getattr(error, attribute, None), int):
            return getattr(error, attribute)
    function = _function(error)
    call = re.search(rf"\b{re.escape(function)}\s*\(", expression) if function else None
    return call.start() if call else None


def _function(error: Exception) -> str:
    # An unknown function's name is only in its message: "Unknown function: NAME()".
    unknown = re.match(r"Unknown function: (\w+)", str(error))
    return unknown.group(1) if unknown else getattr(error, "function_name", "") or ""


def _reason(error: Exception) -> str:
    if isinstance(error, exceptions.EmptyExpressionError):
        return "the expression is empty"
    if isinstance(error, exceptions.IncompleteExpressionError):
        return "the expression ends too early"
    if isinstance(error, exceptions.LexerError):
        return str(error.message)
    if isinstance(error, exceptions.JMESPathTypeError):
        return f"{error.function_name}() takes {' or '.join(error.expected_types)}, not {error.actual_type}"
    if hasattr(error, "token_value"):
        return f"unexpected {error.token_value!r}"
    return str(error)
