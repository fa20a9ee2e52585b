# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a compilation takes in, and how BCC's answer becomes an object; no compiler runs here."""

from __future__ import annotations

import json
import os
import struct

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import bcc, compilers
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import elf


@pytest.fixture
def source(tmp_path):
    """A C file that includes two of its own and one of the system."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "deep.h").write_text("int deep;\n")
    (tmp_path / "a.h").write_text('#pragma once\n#include "inner/deep.h"\nint a;\n')
    main = tmp_path / "main.c"
    main.write_text('# include "a.h"\n#include <linux/bpf.h>\n\t#include "none.h"\nint main_;\n')
    return main


def test_sources(source):
    assert [os.path.relpath(path, source.parent) for path in compilers.sources(str(source))] == [
        "main.c",
        "a.h",
        "inner/deep.h",
    ]


def test_files_that_include_each_other_are_listed_once(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{one}.h").write_text(f'#include "{other}.h"\n')
    assert len(compilers.sources(str(tmp_path / "a.h"))) == 2


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(SockredirError, match=r"cannot read .*none\.c: No such file or directory"):
        compilers.sources(str(tmp_path / "none.c"))


def test_the_digest_changes_with_all_that_matters_and_nothing_else(source, tmp_path_factory):
    def digest(defines=None, compiler="clang"):
        return compilers.source_digest(str(source), defines or {}, compiler)

    before = digest()
    assert digest({"A": 1}) != before
    assert digest({"A": 1, "B": 2}) == digest({"B": 2, "A": 1})
    assert digest(compiler="bcc") != before
    os.utime(source, (0, 0))
    assert digest() == before
    moved = tmp_path_factory.mktemp("moved") / "x"
    os.rename(source.parent, moved)
    assert compilers.source_digest(str(moved / "main.c"), {}, "clang") == before
    (moved / "inner" / "deep.h").write_text("int deeper;\n")
    assert compilers.source_digest(str(moved / "main.c"), {}, "clang") != before


def test_an_object_of_bcc_is_for_one_kernel():
    assert compilers.kernel_of("bcc") == os.uname().release
    assert compilers.kernel_of("clang") is None


def test_options():
    defines = {"D": 1, "A": None, "B": True, "C": False, "E": "x y", "F": 0}
    assert compilers.options(defines) == ["-DA", "-DB", "-DD=1", "-DE=x y", "-DF=0"]
    with pytest.raises(SockredirError, match="'-o/etc' is not a name in C"):
        compilers.options({"-o/etc": 1})


def executable(path):
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_clang_by_its_name_first_then_the_newest_number(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compilers, "_LLVM_DIRECTORIES", "/nowhere")
    monkeypatch.setattr(compilers, "_DIRECTORIES", ())
    assert compilers.find_clang() is None
    executable(tmp_path / "clang-9")
    newest = executable(tmp_path / "clang-15")
    executable(tmp_path / "clang-format-16")
    (tmp_path / "clang-17").write_text("not executable")
    assert compilers.find_clang() == newest
    plain = executable(tmp_path / "clang")
    assert compilers.find_clang() == plain


def test_flattening_keeps_file_and_line(source):
    text = bcc.flatten(str(source))
    here = os.path.dirname(source)
    assert text.splitlines() == [
        f'#line 1 "{source}"',
        f'#line 1 "{here}/a.h"',
        "#pragma once",
        f'#line 1 "{here}/inner/deep.h"',
        "int deep;",
        "",
        f'#line 3 "{here}/a.h"',
        "int a;",
        "",
        f'#line 2 "{source}"',
        "#include <linux/bpf.h>",
        '\t#include "none.h"',
        "int main_;",
    ]


def test_flattening_ends(tmp_path):
    (tmp_path / "a.h").write_text('#include "a.h"\n')
    with pytest.raises(SockredirError, match="includes itself"):
        bcc.flatten(str(tmp_path / "a.h"))


RETURN = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 5, 0x95, 0, 0, 0)
FROM_MAP_7 = struct.pack("<BBhiBBhi", 0x18, 0x11, 0, 7, 0, 0, 0, 0)
# The same bits as a map's address, but the second half of a 64-bit constant and another instruction's number.
NO_MAP = struct.pack("<BBhiBBhi", 0x18, 0x01, 0, 7, 0, 0, 0, 0x1118)
INFO = {"map_type": "18", "key_size": "4", "value_size": "4", "max_entries": "64", "map_flags": "0x0", "pos": "0"}


def answer(**functions):
    made = [{"name": name, "code": code.hex()} for name, code in functions.items()]
    return {"functions": made, "tables": [{"name": "peers", "fd": 7, "info": INFO}], "licence": "GPL"}


def test_bccs_answer_becomes_an_object():
    text = "int\nverdict (struct sk_msg_md *msg) {}\nint sockops(struct bpf_sock_ops *ops) {}"
    made = answer(verdict=NO_MAP + FROM_MAP_7 + RETURN, sockops=RETURN, bpf_metadata_layout=RETURN)
    data = bcc._object(made, text, "it")
    assert [(one.name, one.prog_type) for one in elf.programs(data, "it")] == [("sockops", 13), ("verdict", 16)]
    sections = {section.name: section.data for section in elf.read(data, "it")}
    assert struct.unpack("<QQ", sections[".relsk_msg/bcc"])[0] == 16
    assert sections[".rodata"][72:] == struct.pack("<I", 5)


def test_sockets_have_cookies_of_eight_bytes():
    assert bcc._map({"name": "peers", "fd": 7, "info": INFO}).value_size == 8
    assert bcc._map({"name": "flows", "fd": 7, "info": dict(INFO, map_type="1")}).value_size == 4


@pytest.mark.parametrize(
    "text", ["int verdict(struct xdp_md *x)", "int verdict(void *x)", "int other(struct sk_msg_md *x)"]
)
def test_a_function_of_another_kind_is_refused(text):
    with pytest.raises(SockredirError, match="it contains the function verdict, which is not a program"):
        bcc._object(answer(verdict=RETURN), text, "it")


def test_metadata_that_is_no_constant_is_refused():
    with pytest.raises(SockredirError, match="bpf_metadata_layout has to return a number and do nothing else"):
        bcc._object(answer(bpf_metadata_layout=FROM_MAP_7 + RETURN), "", "it")


def packages(monkeypatch, found):
    monkeypatch.setattr(bcc, "_INTERPRETERS", ("/bin/sh",))
    monkeypatch.setattr(bcc, "_packages", lambda interpreter: json.loads(json.dumps(found)))


def test_the_right_package_is_told_by_libbcc(tmp_path, monkeypatch):
    real, other = tmp_path / "dist" / "bcc", tmp_path / "local" / "bcc"
    real.mkdir(parents=True)
    other.mkdir(parents=True)
    packages(monkeypatch, [str(other), str(real)])
    assert bcc.search() == bcc.Search(None, [str(other), str(real)])
    (real / "libbcc.py").write_text("")
    assert bcc.search() == bcc.Search(bcc.Found("/bin/sh", str(real.parent)), [str(other)])
    packages(monkeypatch, [])
    assert bcc.search() == bcc.Search(None, [])
