# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a C header says, asked by a program that a compiler makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Dict

import pytest


def values(header: Path, expressions: Dict[str, str], directory: Path) -> Dict[str, int]:
    """Name -> value of its C expression; skips the test where there is no compiler.

    :param directory: for the program.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler (cc, gcc or clang) to ask the header")
    prints = "".join(f'printf("{name} %zu\\n", (size_t)({text}));\n' for name, text in expressions.items())
    source, program = directory / "layout.c", directory / "layout"
    source.write_text(f'#include <stddef.h>\n#include <stdio.h>\n#include "{header}"\nint main(void) {{ {prints} }}\n')
    subprocess.run([compiler, "-o", str(program), str(source)], check=True)
    lines = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}
