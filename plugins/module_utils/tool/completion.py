# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bash and zsh complete after ``sockredirctl``: written out, so that no Python starts for a key."""

from __future__ import annotations

import argparse
from typing import Iterable, List

from . import words

_BASH = """\
# SPDX-License-Identifier: GPL-3.0-or-later
# {mark}

# Another program's own completion, as far as bash-completion is there.
_sockredirctl_command() {{
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif (($1 == COMP_CWORD)); then
        mapfile -t COMPREPLY < <(compgen -c -- "${{COMP_WORDS[COMP_CWORD]}}")
    else
        compopt -o default
    fi
}}

_sockredirctl() {{
    local now=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} verb='' words='' at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${{COMP_WORDS[at]}} in
        --state-dir) ((at++)) ;;
        -*) ;;
        *)
            verb=${{COMP_WORDS[at]}}
            break
            ;;
        esac
    done
    COMPREPLY=()
    if [[ $verb == exec ]]; then
        for ((at++; at < COMP_CWORD; at++)); do
            case ${{COMP_WORDS[at]}} in
            {command_values}) ((at++)) ;;
            -*) ;;
            *) break ;;
            esac
        done
        if ((at > COMP_CWORD)); then
            return
        elif ((at < COMP_CWORD)) || [[ $now != -* ]]; then
            _sockredirctl_command "$at"
            return
        fi
    fi
    case $verb:$before in
    {paths})
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$now")
        return
        ;;
    {values}) return ;;
    esac
    case $verb in
{verbs}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$now")
}}
complete -F _sockredirctl sockredirctl
"""

_ZSH = """\
#compdef sockredirctl
# SPDX-License-Identifier: GPL-3.0-or-later
# {mark}
local state
local -a verbs
verbs=(
{described}
)
_arguments -C {options} '1:verb:->verb' '*::argument:->rest'
case $state in
verb) _describe verb verbs ;;
rest)
    case $words[1] in
{verbs}
    esac
    ;;
esac
"""

#: Values that are paths, by the name that the help gives them.
_PATHS = ("DIR", "FILE", "PATH")


def bash(parser: argparse.ArgumentParser) -> str:
    """For bash, alone or with bash-completion."""
    verbs = words.verbs(parser)
    every = words.options(parser) + [option for verb in verbs for option in verb.options]
    cases = [_bash_case("''", _names(words.options(parser)) + [verb.name for verb in verbs])]
    cases += [_bash_case(verb.name, _names(verb.options) + verb.choices) for verb in verbs]
    return _BASH.format(
        mark=words.MARK,
        command_values=" | ".join(_names([o for verb in verbs if verb.command for o in verb.options if o.value])),
        paths=_patterns(option for option in every if option.value in _PATHS),
        values=_patterns(option for option in every if option.value and option.value not in _PATHS),
        verbs="\n".join(cases),
    )


def _bash_case(verb: str, offered: List[str]) -> str:
    return f"    {verb}) words='{' '.join(offered)}' ;;"


def _patterns(options: Iterable[words.Option]) -> str:
    return " | ".join(sorted({f"*:{name}" for option in options for name in option.names}))


def _names(options: List[words.Option]) -> List[str]:
    return [name for option in options for name in option.names]


def zsh(parser: argparse.ArgumentParser) -> str:
    """For zsh's completion system."""
    verbs = words.verbs(parser)
    return _ZSH.format(
        mark=words.MARK,
        described="\n".join("    " + _quoted(f"{verb.name}:{verb.help}") for verb in verbs),
        options=_zsh_options(words.options(parser)),
        verbs="\n".join(f"    {verb.name}) {_zsh_verb(verb)} ;;" for verb in verbs),
    )


def _zsh_verb(verb: words.Verb) -> str:
    rest = " '*::command:_normal'" if verb.command else ""
    choices = " " + _quoted(f"1:{verb.name}:({' '.join(verb.choices)})") if verb.choices else rest
    return f"_arguments {_zsh_options(verb.options)}{choices}"


def _zsh_options(options: List[words.Option]) -> str:
    return " ".join(_zsh_option(name, option) for option in options for name in option.names)


def _zsh_option(name: str, option: words.Option) -> str:
    meaning = option.help.replace("[", "\\[").replace("]", "\\]")
    action = "_files" if option.value in _PATHS else " "
    return _quoted(f"{name}[{meaning}]" + (f":{option.value}:{action}" if option.value else ""))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
