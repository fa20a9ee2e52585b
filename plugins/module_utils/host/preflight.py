# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report means for the wanted state: what is missing, what to install, what needs no further check.

Pure: the role acts on these decisions and makes none of its own.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .. import distribution
from . import advice, prerequisites

AUTO, NONE = "auto", "none"
BPFFS = "/sys/fs/bpf"
#: The programs of the collection, by what they are attached to.
ON_MAP, ON_CGROUP = ("receive", "verdict"), ("sockops",)
#: The map that they are attached to.
MAP = "peers"
_PIN_DIRECTORY = {"uid": 0, "gid": 0, "mode": "0700"}

Report = Dict[str, Any]


class Wanted(NamedTuple):
    """:ivar cgroup: what is to be accelerated, absolute or relative to the cgroup2 mount.
    :ivar compiler: ``auto``, ``clang``, ``bcc``, or ``none`` if the object is compiled elsewhere.
    :ivar install_packages: whether missing packages may be installed.
    :ivar hooks: programs of interception with the cgroup, or the file of the network namespace, that each is to be
        attached to, in the order of attaching.
    """

    cgroup: str
    compiler: str = AUTO
    install_packages: bool = False
    hooks: Sequence[Sequence[str]] = ()


def judge(wanted: Wanted, report: Report) -> Dict[str, Any]:
    """``missing``, ``packages``, ``warnings``, ``standing``, ``pins_ready``, ``mount_bpffs``, ``hooks``.

    :param report: of :func:`..host_report.report.gather`, with prerequisites and drift.
    """
    lacking = _lacking(wanted, report)
    packages = _packages(wanted, report, lacking)
    standing = _standing(wanted, report)
    return {
        "missing": [each for each in lacking if not packages or each["name"] not in _BRING],
        "packages": packages,
        "warnings": _warnings(wanted, report),
        "standing": standing,
        "pins_ready": standing and report["pin_directory"] == _PIN_DIRECTORY,
        "mount_bpffs": _needs_bpffs(report),
        "hooks": _hooks(wanted, report),
    }


#: What packages bring, by the name of the prerequisite.
_BRING = ("libbpf", "compiler", "sockredir_compiler")


def _lacking(wanted: Wanted, report: Report) -> List[prerequisites.Prerequisite]:
    """The prerequisites that are not met, and the compiler that was asked for by name."""
    scopes = [prerequisites.LOAD] + ([prerequisites.BUILD] if wanted.compiler == AUTO else [])
    found = prerequisites.missing(report["prerequisites"], scopes)
    if wanted.compiler in (AUTO, NONE) or wanted.compiler in report["compilers"]:
        return found
    there = next((each["found"] for each in report["prerequisites"] if each["name"] == "compiler"), "nothing")
    names = distribution.packages(wanted.compiler, report["host"]["family"], report["host"]["kernel"])
    cure = f"install {' '.join(names) or wanted.compiler}, or sockredir_compiler: auto"
    asked = {"name": "sockredir_compiler", "ok": False, "found": there, "needed": wanted.compiler, "cure": cure}
    return [*found, {**asked, "scope": prerequisites.BUILD}]


def _packages(wanted: Wanted, report: Report, lacking: List[prerequisites.Prerequisite]) -> List[str]:
    """What to install; nothing if that is not allowed, or if nobody knows the names here."""
    if not wanted.install_packages:
        return []
    brings = {"libbpf": "libbpf", "compiler": "clang", "sockredir_compiler": wanted.compiler}
    subjects = [brings[each["name"]] for each in lacking if each["name"] in brings]
    family, kernel = report["host"]["family"], report["host"]["kernel"]
    return [name for subject in subjects for name in distribution.packages(subject, family, kernel)]


def _warnings(wanted: Wanted, report: Report) -> List[str]:
    whole_host = wanted.cgroup.strip() in ("/", report["host"]["cgroup2"])
    scopes = (advice.ANY, advice.WHOLE_HOST) if whole_host else (advice.ANY,)
    return [f"{each['risk']}; cure: {each['cure']}" for each in report["advice"] if each["scope"] in scopes]


def _standing(wanted: Wanted, report: Report) -> bool:
    """Whether the host is as its manifest says, and that has the wanted attachments: they need no look of their own."""
    if not _as_its_manifest(report):
        return False
    pins, cgroup = report["pin_dir"], _cgroup_path(wanted.cgroup, report)
    expected: List[Tuple[Any, Any, Any]] = [(f"{pins}/{name}", f"{pins}/{MAP}", None) for name in ON_MAP]
    expected += [(f"{pins}/{name}", None, cgroup) for name in ON_CGROUP]
    entries = [entry for entry in report["manifest"]["attachments"] if _name(entry) in (*ON_MAP, *ON_CGROUP)]
    found = [(entry.get("program"), entry.get("map"), entry.get("cgroup")) for entry in entries]
    return len(found) == len(expected) and set(found) == set(expected)


def _hooks(wanted: Wanted, report: Report) -> Dict[str, List[List[str]]]:
    """Of interception: what to ``attach``, as nobody knows it to be there, and what to ``detach``: no rule needs it."""
    manifest = report["manifest"] or {}
    entries = [entry for entry in manifest.get("attachments", []) if _name(entry) not in (*ON_MAP, *ON_CGROUP)]
    there = {(_name(entry), entry.get("cgroup") or entry.get("netns")) for entry in entries}
    named = {(name, _cgroup_path(cgroup, report)): [name, cgroup] for name, cgroup in wanted.hooks}
    known = there if _as_its_manifest(report) else set()
    return {
        "attach": [pair for place, pair in named.items() if place not in known],
        "detach": [[name, cgroup] for name, cgroup in sorted(there) if (name, cgroup) not in named],
    }


def _as_its_manifest(report: Report) -> bool:
    drift = report["drift"]
    return bool(report["enabled"]) and drift is not None and all(each["kind"] == "unfinished" for each in drift)


def _name(entry: Dict[str, Any]) -> str:
    """Of the program that the manifest says is attached."""
    return os.path.basename(entry.get("program") or "")


def _cgroup_path(cgroup: str, report: Report) -> Optional[str]:
    root = report["host"]["cgroup2"]
    return os.path.normpath(os.path.join(root, cgroup if cgroup != "/" else "")) if root else None


def _needs_bpffs(report: Report) -> bool:
    """Whether the usual bpffs is to be mounted for the pins."""
    reachable = [each["mount_point"] for each in report["host"]["bpffs"] if each["reachable"]]
    return (report["pin_dir"] + "/").startswith(BPFFS + "/") and BPFFS not in reachable
