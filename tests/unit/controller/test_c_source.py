# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many C files become one, and the compiler still names the right file and line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.plugin_utils.c_source import join

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "a.h").write_text("#ifndef A\n#define A\nint a;\n#endif\n")
    (tmp_path / "b.h").write_text('#ifndef B\n#define B\n#include "a.h"\nint b;\n#endif\n')
    (tmp_path / "main.c").write_text('#include <stddef.h>\n#include "b.h"\n  # include "a.h"\nint c;\n')
    return tmp_path


def test_each_header_comes_once_in_its_place(sources):
    lines = join(sources / "main.c").splitlines()
    assert [line for line in lines if line.startswith("int")] == ["int a;", "int b;", "int c;"]
    assert [line for line in lines if "include" in line] == ["#include <stddef.h>"]


def test_a_header_in_a_folder_keeps_its_path_and_finds_what_lies_above(sources):
    (sources / "deep").mkdir()
    (sources / "deep" / "d.h").write_text('#include "../a.h"\n#include "e.h"\nint d;\n')
    (sources / "deep" / "e.h").write_text("int e;\n")
    (sources / "main.c").write_text('#include "a.h"\n#include "deep/d.h"\nint c;\n')
    lines = join(sources / "main.c").splitlines()
    assert [line for line in lines if line.startswith("int")] == ["int a;", "int e;", "int d;", "int c;"]
    assert '#line 1 "deep/e.h"' in lines


def test_a_missing_header_is_an_error(sources):
    (sources / "a.h").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.h"):
        join(sources / "main.c")


@pytest.mark.skipif(not shutil.which("clang"), reason="no clang here")
@pytest.mark.parametrize(("file", "place"), [("a.h", "a.h:3:"), ("b.h", "b.h:4:"), ("main.c", "main.c:4:")])
def test_the_compiler_names_the_right_place(sources, file, place):
    path = sources / file
    path.write_text(path.read_text().replace(f"int {file[0].replace('m', 'c')};", "int 1;"))
    joined = sources / "joined.c"
    joined.write_text(join(sources / "main.c"))
    done = subprocess.run(["clang", "-fsyntax-only", joined], capture_output=True, text=True, check=False)
    assert done.stderr.startswith(place), done.stderr


def test_ours_has_no_local_include_left():
    text = join(ROOT / "bpf" / "sockredir.bpf.c")
    assert '#include "' not in text
    assert 'SEC("sk_msg' in text
