# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``iptables-save -t nat`` says. Pure."""

from __future__ import annotations

import shlex
from typing import Dict, List, Optional, Tuple

from .nat_chains import EVERY, Ports, Rule, Ruleset, complement

_BASE = "OUTPUT"
_TRANSLATES = ("REDIRECT", "DNAT")
_PORTS = ("--dport", "--dports", "--destination-port", "--destination-ports")


def parse(text: str, prefix: str) -> Ruleset:
    """The chains of the table.

    :param prefix: begins the names of its chains and the words about its rules, such as ``ip6tables``.
    """
    chains: Dict[str, List[Rule]] = {}
    for line in text.splitlines():
        words = _split(line)
        if words[:1] == ["-A"] and len(words) > 1:
            chains.setdefault(prefix + words[1], []).append(_rule(words, line, prefix))
    return Ruleset(chains, [prefix + _BASE] if chains else [])


def _split(line: str) -> List[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a comment that no shell would take
        return line.split()


def _rule(words: List[str], line: str, prefix: str) -> Rule:
    target = _after(words, "-j") or _after(words, "-g") or ""
    translates = target in _TRANSLATES
    return Rule(
        "" if _negated(words, "-p") else (_after(words, "-p") or ""),
        next((_ports(words, option) for option in _PORTS if option in words), EVERY),
        () if translates or not target else (prefix + target,),
        prefix + line.strip() if translates else "",
    )


def _after(words: List[str], option: str) -> Optional[str]:
    at = words.index(option) + 1 if option in words else len(words)
    return words[at] if at < len(words) else None


def _negated(words: List[str], option: str) -> bool:
    return option in words and words[words.index(option) - 1] == "!"


def _ports(words: List[str], option: str) -> Ports:
    try:
        ranges = tuple(_range(text) for text in (_after(words, option) or "").split(","))
    except ValueError:
        return EVERY
    return complement(ranges) if _negated(words, option) else ranges


def _range(text: str) -> Tuple[int, int]:
    low, colon, high = text.partition(":")
    return int(low or 0), int(high or 65535) if colon else int(low)
