# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manual page of ``sockredirctl``, in man(7)'s macros."""

from __future__ import annotations

import argparse
from typing import List

from . import words


def page(parser: argparse.ArgumentParser, state_dir: str) -> str:
    """:param parser: of the tool, whose texts these are.
    :param state_dir: where this host keeps its manifest.
    """
    purpose = parser.description or ""
    lines = [
        f'.\\" {words.MARK}',
        '.\\" SPDX-' + "License-Identifier: GPL-3.0-or-later",
        ".TH SOCKREDIRCTL 8",
        ".SH NAME",
        f"sockredirctl \\- {_text(purpose[:1].lower() + purpose[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B sockredirctl",
        "[\\fIOPTION\\fR ...] \\fIVERB\\fR [\\fIARGUMENT\\fR ...]",
        ".SH DESCRIPTION",
        _text(purpose),
        "It needs root.",
        *_options(words.options(parser), ".SH OPTIONS"),
        ".SH VERBS",
    ]
    for verb in words.verbs(parser):
        lines += _verb(verb)
    lines += [".SH EXIT STATUS", *_exit_codes(parser.epilog or "")]
    lines += [".SH FILES", ".TP", f".I {_text(state_dir)}", "The manifest of this host, and the objects that it names."]
    return "\n".join(lines) + "\n"


def _verb(verb: words.Verb) -> List[str]:
    rest = " [\\-\\-] \\fICMD\\fR [\\fIARGUMENT\\fR ...]" if verb.command else ""
    rest = " " + "|".join(map(_text, verb.choices)) if verb.choices else rest
    lines = [f".SS {verb.name}", f"\\fBsockredirctl {verb.name}\\fR [\\fIOPTION\\fR ...]{rest}", ".PP"]
    return lines + [_text(verb.help[:1].upper() + verb.help[1:] + "."), *_options(verb.options)]


def _options(options: List[words.Option], *head: str) -> List[str]:
    lines = list(head)
    for option in options:
        value = f" \\fI{_text(option.value)}\\fR" if option.value else ""
        names = ", ".join(f"\\fB{_text(name)}\\fR{value}" for name in option.names)
        lines += [".TP", names, _text(option.help)]
    return lines


def _exit_codes(epilog: str) -> List[str]:
    """The sentence of the help, an entry for each code."""
    entries = " ".join(epilog.split()).split(": ", 1)[-1].rstrip(".").split("; ")
    lines: List[str] = []
    for entry in entries:
        code, text = entry.split(" ", 1)
        lines += [".TP", f".B {_text(code.rstrip(':'))}", _text(text)]
    return lines


def _text(text: str) -> str:
    """Plain text in roff: no escape, no request, and hyphens that can be copied as options."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + safe if safe[:1] in (".", "'") else safe
