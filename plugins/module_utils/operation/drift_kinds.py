# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan the whole host from its manifest, and name the kind of drift that each step repairs. Pure.

The plan is that of its parts (:mod:`.program`, :mod:`.attachment`, :mod:`.setup`), made by the very same functions with
what the manifest says as what is wanted. Restore and rollback apply it; status and audit say it should be empty.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ..change.step import Plan, Step
from ..host.files import File
from ..kernel import hooks
from ..resource.setup.fingerprint import file_kind, fingerprint

PROGRAM, SETTINGS, BPFFS = "program", "settings", "bpffs"


def _attachment(hook: hooks.Hook) -> Dict[str, Optional[str]]:
    created = {"create_cgroup": hook.lost, "start_slice": hook.lost} if hook.kind == hooks.CGROUP else {}
    return {
        **created,
        "attach_link": hook.lost,
        "attach_legacy": hook.lost,
        "replace_link": "program_replaced",
        "replace_legacy": "program_replaced",
        "detach_link": "attached_twice",
        "detach_legacy": "attached_twice",
        "unpin_link": hook.lost,
        "record": None,
    }


#: What a step of a part means; None for one that only follows from the others.
_KINDS: Dict[str, Dict[str, Optional[str]]] = {
    PROGRAM: {
        "make_directory": "pin_missing",
        "pin": "pin_missing",
        "replace": "pin_replaced",
        "unpin": "leftover",
        "store": "object_changed",
        "load": None,
        "record": None,
        "identify": None,
    },
    **{hook.name: _attachment(hook) for hook in hooks.HOOKS},
    SETTINGS: {"settings": "settings_changed", "enlist": "listener_unknown"},
    BPFFS: {"mount": "pin_missing"},
}
#: What a reboot takes away.
_VOLATILE = ("pin_missing", *(hook.lost for hook in hooks.HOOKS))


def name_drift(part: str, steps: Iterable[Step], same_boot: bool) -> Plan:
    """The steps that say something of their own, each with its kind of drift.

    Where only such are left that follow from others (the kernel's ids are not the recorded ones, while all that they
    identify is as it should be), they say that somebody has put another object there.

    :param part: ``program``, ``settings``, ``bpffs``, or the name of an attachment's hook.
    :param same_boot: whether the manifest was written in this boot.
    """
    steps = list(steps)
    named = [_named(step, _KINDS[part].get(step.verb, step.verb), same_boot) for step in steps]
    telling = [step for step in named if step.kind]
    if steps and not telling and same_boot:
        return [_named(steps[-1], "pin_replaced", same_boot)]
    return telling


def _named(step: Step, kind: Optional[str], same_boot: bool) -> Step:
    if kind in _VOLATILE and not same_boot:
        kind = "lost_at_reboot"
    return replace(step, kind=kind or "")


def refused(subject: str, problem: str, kind: str, wanted: str = "as in the manifest") -> Step:
    """What a part says that cannot be planned: its error, as a difference."""
    return Step("refuse", subject, problem, wanted, kind=kind)


def file_drift(recorded: Mapping[str, str], found: Mapping[str, Optional[File]], unit: Mapping[str, Any]) -> Plan:
    """How the files are not as the manifest says; ``found`` may have more than the recorded ones."""
    steps: List[Step] = []
    for path in sorted(set(recorded) | set(found)):
        file = found.get(path)
        before, after = fingerprint(file) if file else None, recorded.get(path)
        if before != after:
            steps.append(Step("file", path, before, after, kind=file_kind(path, unit)))
    return steps


def reported(steps: Iterable[Step]) -> List[Dict[str, Any]]:
    """Named steps as reports show them: ``before`` is what was found, ``after`` what enable would make of it."""
    keys = ("subject", "before", "after")
    return [{"kind": step.kind, **{key: getattr(step, key) for key in keys}} for step in steps]
