# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped programs, compiled in versions that differ in nothing but their identity, and one without ``receive``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict

from .collection import ROOT

#: v0 has no program ``receive``, as version 1.0.
VERSIONS = {"v1": "", "v2": "V2", "v3": "V3", "v0": "V0"}
_CLANG = ["clang", "-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu", "-c"]


def compiled(directory: Path) -> Dict[str, Path]:
    """The object of each version, made in ``directory``."""
    made = {}
    for name, text in VERSIONS.items():
        source = directory / name
        shutil.copytree(ROOT / "bpf", source)
        if name == "v0":
            _without_receive(source / "sockredir.bpf.c")
        with open(source / "sockredir.bpf.c", "a", encoding="utf-8") as stream:
            stream.write(f'\nconst char version_{name}[] SEC("license_{name}") = "{text}";\n')
        made[name] = directory / f"{name}.o"
        subprocess.run([*_CLANG, str(source / "sockredir.bpf.c"), "-o", str(made[name])], check=True)
    return made


def _without_receive(source: Path) -> None:
    text = source.read_text()
    lesser = re.sub(r'SEC\("sk_skb/stream_verdict"\)\nint receive\(.*?\n}\n', "", text, flags=re.DOTALL)
    assert lesser != text
    source.write_text(lesser)
