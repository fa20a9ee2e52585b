# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maps of the programs that learn: what Python makes of their bytes, and that the C header agrees."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.learn import layout

HEADER = Path(__file__).resolve().parents[3] / "bpf" / "learn.h"
KEY = "cgroup program port server local"
COUNTS = "connections nanoseconds sent_bytes sent_messages received_bytes received_messages answers"
COUNTS += " files reply_ns replies sizes signs"
SOCKET = "key counts opened kind received asked heard tick window"
LAYOUTS = (("key", KEY, "=Q16sHBB"), ("counts", COUNTS, "=10Q96s48s"), ("socket", SOCKET, "=32s224sQIIQQQI"))


def wanted():
    """What C has to say for the formats of Python to be right: offsets and sizes."""
    values = {"LEARN_SIZES": layout.SIZES, "LEARN_SIGNS": len(layout.SIGNS), "LEARN_WATCHED": layout.WATCHED}
    for name, members, packed in LAYOUTS:
        codes = re.findall(r"\d*s|[A-Z]", packed.replace("10Q", "Q" * 10))
        for index, member in enumerate(members.split()):
            values[f"offsetof(struct learn_{name}, {member})"] = struct.calcsize("=" + "".join(codes[:index]))
    values["sizeof(struct learn_key)"] = layout.KEY_BYTES
    values["sizeof(struct learn_counts)"] = layout.COUNTS_BYTES
    values["sizeof(struct learn_socket)"] = layout.SOCKET_BYTES
    return values


def test_python_and_header_agree(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler (cc, gcc or clang) to ask the header")
    asked = wanted()
    body = "\n".join(f'printf("%zu\\n", (size_t)({expression}));' for expression in asked)
    (tmp_path / "ask.c").write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{HEADER}"\nint main() {{{body}}}'
    )
    subprocess.run([compiler, "-o", str(tmp_path / "ask"), str(tmp_path / "ask.c")], check=True)
    said = subprocess.run([str(tmp_path / "ask")], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(asked, map(int, said))) == asked


def test_signs_are_those_of_the_header():
    body = re.search(r"enum learn_sign \{(.*?)\};", HEADER.read_text(), re.DOTALL)[1]
    names = re.findall(r"^\s*LEARN_(\w+),", body, re.MULTILINE)
    assert [name.lower() for name in names] == [*layout.SIGNS, "signs"]


def raw_counts(first):
    return struct.pack("=10Q24I12I", *range(first, first + 10), *[0] * 9, 3, *[0] * 14, 1, *[0] * 11)


def test_decoding():
    key = struct.pack("=Q16sHBB4x", 77, b"redis-server\0\0\0\0", 6379, 1, 0)
    found = layout.decode_socket(key + raw_counts(1) + struct.pack("=QII3QI4x", 99, 0, 1, 0, 0, 0, 0))
    assert found.key == layout.Key(77, "redis-server", 6379, True, False)
    assert (found.opened_ns, found.watched) == (99, True)
    assert (found.counts.connections, found.counts.answers) == (1, 7)
    assert (found.counts.sizes[9], sum(found.counts.sizes)) == (3, 3)
    assert found.counts.signs[0] == 1
    assert not layout.decode_socket(key + raw_counts(1) + struct.pack("=QII3QI4x", 99, 1, 1, 0, 0, 0, 0)).watched


def test_counts_add_up():
    one = layout.decode_counts(raw_counts(1))
    assert one.plus(layout.NOTHING) == one
    both = one.plus(layout.decode_counts(raw_counts(10)))
    assert (both.connections, both.answers, both.sizes[9], both.signs[0]) == (11, 23, 6, 2)


def test_ticks_are_the_second_number_of_activity():
    assert layout.decode_ticks(struct.pack("=QQ", 7, 42)) == 42
