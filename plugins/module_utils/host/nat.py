# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Address translation of connections that this host makes, as nftables and iptables say. Nothing is loaded for it.

A tool that is absent is not asked, nor is a table whose kernel module is not loaded: looking would load it.
"""

from __future__ import annotations

import os
import shutil
from typing import List, Optional, Sequence, Set

from ..command import run
from ..errors import SockredirError
from . import nat_iptables, nat_nft
from .nat_chains import Found, Ruleset, merged, translations

_TIMEOUT = 20
_FAMILIES = {"ip": ("iptables", "/proc/net/ip_tables_names"), "ip6": ("ip6tables", "/proc/net/ip6_tables_names")}
_NF_TABLES = "nf_tables"


def observe() -> List[Found]:
    """What is redirected elsewhere in the output chains of this network namespace.

    :raises SockredirError: a tool that is there failed.
    """
    by_nft = _nft()
    found = [by_nft.rules] if by_nft else []
    for family, (tool, names) in _FAMILIES.items():
        if by_nft is None or family in by_nft.opaque:
            saved = _run([f"{tool}-nft-save", f"{tool}-save"], ["-t", "nat"]) if _has_nf_tables() else None
            if saved is not None:
                # The same rules, as the tool that made them says them.
                found = [_without(each, f"nft {family} nat ") for each in found]
                found.append(nat_iptables.parse(saved, f"{tool} "))
        if "nat" in _lines(names):
            saved = _run([f"{tool}-legacy-save", f"{tool}-save"], ["-t", "nat"])
            found.append(nat_iptables.parse(saved or "", f"{tool}-legacy "))
    return translations(merged(found))


def _without(rules: Ruleset, prefix: str) -> Ruleset:
    return Ruleset({name: each for name, each in rules.chains.items() if not name.startswith(prefix)}, rules.bases)


def _nft() -> Optional[nat_nft.Parsed]:
    text = _run(["nft"], ["-j", "list", "ruleset"]) if _has_nf_tables() else ""
    return None if text is None else nat_nft.parse(text)


def _has_nf_tables() -> bool:
    """Whether the kernel has it without loading a module."""
    loaded = _lines("/proc/modules")
    built_in = _lines(f"/lib/modules/{os.uname().release}/modules.builtin")
    if not loaded and not os.path.exists("/proc/modules"):
        return True
    return any(line.split(" ")[0] == _NF_TABLES for line in loaded) or any(
        line.endswith(f"/{_NF_TABLES}.ko") for line in built_in
    )


def _lines(path: str) -> Set[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return set(text.read().splitlines())
    except OSError:
        return set()


def _run(tools: Sequence[str], arguments: Sequence[str]) -> Optional[str]:
    """The output of the first tool that is there; None without one.

    :raises SockredirError: it failed.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    program = next(filter(None, (shutil.which(tool, path=path) for tool in tools)), None)
    if program is None:
        return None
    command = [program, *arguments]
    done = run(command, _TIMEOUT)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise SockredirError(f"{' '.join(command)}: {(said or str(done.returncode)).splitlines()[0]}")
    return done.stdout.decode("utf-8", "replace")
