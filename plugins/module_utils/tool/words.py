# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of ``sockredirctl`` as data, so that manual and completion say what ``--help`` says."""

from __future__ import annotations

import argparse
from typing import List, NamedTuple

MARK = "Made by the Ansible collection ebpf.sockredir; goes when it is disabled."


class Option(NamedTuple):
    """:ivar names: as typed, such as ``-v`` and ``--verbose``.
    :ivar value: the name of its value; empty if it takes none.
    """

    names: List[str]
    value: str
    help: str


class Verb(NamedTuple):
    """:ivar choices: what its argument can be, such as the modes; empty if it takes none, or any.
    :ivar command: whether the rest of the line is another program's.
    """

    name: str
    help: str
    options: List[Option]
    choices: List[str]
    command: bool


def options(parser: argparse.ArgumentParser) -> List[Option]:
    """The options of the tool, or of one verb."""
    return [_option(action) for action in parser._actions if action.option_strings]


def _option(action: argparse.Action) -> Option:
    value = str(action.metavar or action.dest.upper()) if action.nargs is None else ""
    return Option(list(action.option_strings), value, (action.help or "") % vars(action))


def verbs(parser: argparse.ArgumentParser) -> List[Verb]:
    """The verbs, in the order of the help."""
    group = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [_verb(group.choices[shown.dest], shown.dest, shown.help or "") for shown in group._get_subactions()]


def _verb(parser: argparse.ArgumentParser, name: str, text: str) -> Verb:
    arguments = [action for action in parser._actions if not action.option_strings]
    choices = [str(choice) for action in arguments for choice in action.choices or ()]
    command = any(action.nargs == argparse.REMAINDER for action in arguments)
    return Verb(name, text, options(parser), choices, command)
