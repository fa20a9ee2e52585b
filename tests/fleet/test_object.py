# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockmap_object`` compiles for others: right byte order, same bytes each time, errors in one line."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from support.collection import ROOT
from support.module import run_module

pytestmark = pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
SOURCE = ROOT / "bpf" / "sockredir.bpf.c"


def build(dest, check=False, **options):
    return run_module("sockmap_object", {"src": str(SOURCE), "dest": str(dest), **options}, check=check)


def test_check_then_real_then_again(tmp_path):
    dest = tmp_path / "new" / "sockredir.bpf.o"
    checked = build(dest, check=True)
    assert checked["changed"]
    assert not dest.parent.exists()
    made = build(dest)
    assert made["changed"]
    assert made["path"] == str(dest)
    assert made["checksum"] == checked["checksum"] == hashlib.sha256(dest.read_bytes()).hexdigest()
    assert not build(dest)["changed"]
    dest.write_bytes(b"damaged")
    assert build(dest)["changed"]
    assert hashlib.sha256(dest.read_bytes()).hexdigest() == made["checksum"]


@pytest.mark.parametrize(("architecture", "byte_order"), [("x86_64", 1), ("aarch64", 1), ("s390x", 2)])
def test_byte_order(tmp_path, architecture, byte_order):
    dest = tmp_path / "sockredir.bpf.o"
    assert build(dest, architecture=architecture)["architecture"] == architecture
    assert dest.read_bytes()[:6] == b"\x7fELF\x02" + bytes([byte_order])


def test_the_directory_of_the_sources_does_not_matter(tmp_path):
    shutil.copytree(SOURCE.parent, tmp_path / "copy")
    here = build(tmp_path / "a.o")
    there = build(tmp_path / "b.o", src=str(tmp_path / "copy" / SOURCE.name))
    assert here["checksum"] == there["checksum"]


def test_a_source_that_does_not_compile(tmp_path):
    source = tmp_path / "bad.bpf.c"
    source.write_text("int x = ;\n", encoding="ascii")
    result = build(tmp_path / "out" / "bad.o", src=str(source))
    assert result["failed"]
    assert f"{source} does not compile: {source}:1: expected expression" in result["msg"]
    assert "\n" not in result["msg"]
    assert "expected expression" in result["details"]
    assert not (tmp_path / "out").exists()


def test_a_destination_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    result = build(tmp_path / "file" / "x.o")
    assert result["failed"]
    assert f"dest: cannot write {tmp_path}/file: " in result["msg"]
