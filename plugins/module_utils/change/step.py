# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that a plan consists of, each with a before and an after."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Type, TypeVar

Detail = TypeVar("Detail")

#: In a plan, what only a run can know, such as the id that the kernel will give.
UNKNOWN = "known once it is loaded"


@dataclass(frozen=True)
class Step:
    """One change to the host.

    :param verb: str, names the handler that does it (``pin``, ``attach``, ``write`` ...).
    :param subject: str, what it changes, as an operator would name it (mostly a path).
    :param before: JSON-able value of the subject now; None if it does not exist.
    :param after: JSON-able value once the step is done; None if it is removed.
    :param detail: what the handler needs beyond that, of the type that goes with the verb; not shown to the operator.
    :param kind: str, what the step says of the host in reports, such as a kind of drift; empty: nothing of its own.
    """

    verb: str
    subject: str
    before: Any = None
    after: Any = None
    detail: object = field(default=None, compare=False, repr=False)
    kind: str = field(default="", compare=False, repr=False)

    def need(self, expected: Type[Detail]) -> Detail:
        """The detail, of the type that the handler expects.

        :raises TypeError: the plan and the handler do not belong together.
        """
        if not isinstance(self.detail, expected):
            raise TypeError(f"{describe(self)}: {expected.__name__} is needed, not {self.detail!r}")
        return self.detail


Plan = List[Step]


def describe(step: Step) -> str:
    """One line for a log: ``attach /sys/fs/cgroup/x: null -> {"program": 12}``."""
    return f"{step.verb} {step.subject}: {_text(step.before)} -> {_text(step.after)}"


def kind(step: Step) -> str:
    """What a step is called in results and in the journal: its kind, or else its verb."""
    return step.kind or step.verb.rpartition(" ")[2]


def diff(steps: Iterable[Step]) -> Dict[str, str]:
    """The plan as Ansible's ``diff`` return value: one line per subject on each side."""
    steps = list(steps)
    return {
        "before": "".join(_line(step.subject, step.before) for step in steps),
        "after": "".join(_line(step.subject, step.after) for step in steps),
    }


def _line(subject: str, value: Optional[Any]) -> str:
    return f"{subject}: {'absent' if value is None else _text(value)}\n"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
