# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input to sockmap_program: one clear line each, and the host as it was."""

from __future__ import annotations

import glob
import os
import platform
import struct
import subprocess

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import compilers
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock, manifest


@pytest.fixture
def loaded(pair):
    """The pair with a good version loaded."""
    assert pair.run()["failed"] is False
    return pair


def refused(pair, **options):
    """The error of a run that must change nothing, in check mode too."""
    before = pair.everything()
    result = pair.run(**options)
    assert result["failed"] is True, result
    assert pair.everything() == before
    assert "\n" not in result["msg"]
    assert pair.run(check=True, **options)["msg"] == result["msg"]
    return result


def hiding(*paths):
    """Words before a command that hide these files from it."""
    hide = "".join(
        f"mount -t tmpfs none {path} && " if os.path.isdir(path) else f"mount --bind /dev/null {path} && "
        for path in paths
    )
    return ("unshare", "--mount", "sh", "-c", hide + 'exec "$@"', "sh")


def clangs():
    """Each clang of this machine, links resolved."""
    found = [path for pattern in ("/usr/bin/clang*", "/usr/lib/llvm-*/bin/clang*") for path in glob.glob(pattern)]
    return sorted({os.path.realpath(path) for path in found})


def bccs():
    return glob.glob("/usr/lib/python3/dist-packages/bcc")


def test_c_that_does_not_compile(loaded):
    loaded.edit(".port = ops->local_port", ".part = ops->local_port")
    line = next(number for number, text in enumerate(loaded.src.read_text().splitlines(), 1) if ".part" in text)
    result = refused(loaded)
    assert result["msg"].startswith(f"{loaded.src} does not compile: {loaded.src}:{line}: ")
    assert "'part'" in result["msg"]
    assert "1 error generated" in result["details"]


def test_an_error_in_an_included_file_is_placed_there(loaded):
    (loaded.src.parent / "pair.h").write_text("#error look here\n")
    result = refused(loaded)
    assert result["msg"].startswith(f"{loaded.src} does not compile: {loaded.src.parent}/pair.h:1: look here")


def test_a_missing_system_header_names_the_package(loaded):
    result = loaded.run(prefix=hiding("/usr/include/bpf"), defines={"ANEW": 1})
    assert "'bpf/bpf_helpers.h' file not found; run: " in result["msg"]
    assert "libbpf-dev" in result["msg"]


def test_an_object_that_the_verifier_rejects(loaded):
    loaded.edit("*event = ops->local_port", "event[3] = ops->local_port")
    before = loaded.everything()
    result = loaded.run()
    log = result["details"].splitlines()
    assert "processed " in log[-1]
    assert result["msg"] == f"the kernel's verifier rejects the program sockops of {loaded.src}: {log[-2]}"
    assert "invalid access to memory, mem_size=4 off=12 size=4" in log
    assert loaded.everything() == before


def built(pair, name="pair.o"):
    path = pair.src.with_name(name)
    path.write_bytes(compilers.compile_clang(str(pair.src), {}).data)
    return path


def test_neither_c_nor_elf(loaded):
    path = loaded.src.with_name("picture.png")
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    assert refused(loaded, src=str(path))["msg"] == f"src: {path} is neither C nor an ELF file"


def test_an_elf_for_another_machine(loaded):
    msg = refused(loaded, src="/bin/true")["msg"]
    assert msg.startswith("/bin/true is an ELF file for ")
    assert msg.endswith(", not for BPF; compile it with clang -O2 -g -target bpf")


@pytest.mark.parametrize("size", [4, 16, 64, 1000, 5000, -1])
def test_an_elf_that_is_cut_off(loaded, size):
    path = built(loaded)
    path.write_bytes(path.read_bytes()[:size])
    assert refused(loaded, src=str(path))["msg"].startswith(f"{path} is ")


def test_damage_anywhere_in_an_object_is_one_line(loaded):
    """Whatever the reader lets through, libbpf or the kernel refuses, without harm to the module."""
    path = built(loaded)
    good = path.read_bytes()
    for place in range(0, 4096, 512):
        path.write_bytes(good[:place] + b"\xff" * 16 + good[place + 16 :])
        result = loaded.run(src=str(path))
        assert "\n" not in result.get("msg", "")
        if not result["failed"]:
            loaded.run()


def test_programs_of_another_type(loaded):
    loaded.edit('SEC("sk_msg")', 'SEC("xdp")')
    msg = refused(loaded)["msg"]
    assert 'contains the program verdict in SEC("xdp"): a type that does not redirect sockets; use SEC("sockops"' in msg


def test_no_programs_at_all(loaded):
    loaded.src.write_text('#include "pair.h"\nchar LICENSE[] SEC("license") = "GPL";\nint number SEC(".data") = 1;\n')
    assert f"{loaded.src} contains no program; " in refused(loaded)["msg"]


LEGACY = """
#include "pair.h"
struct bpf_map_def { int type, key_size, value_size, max_entries, flags; };
struct bpf_map_def old SEC("maps") = { BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0 };
SEC("sk_msg") int verdict(void *msg)
{
    int key = 0;
    return bpf_map_lookup_elem(&old, &key) ? SK_PASS : SK_DROP;
}
"""


def test_legacy_maps(loaded):
    loaded.src.write_text(LEGACY)
    assert 'defines maps with SEC("maps"), which libbpf 1.0 and newer refuse; define' in refused(loaded)["msg"]


def test_an_object_without_types(loaded):
    path = loaded.src.with_suffix(".o")
    command = f"clang -O2 -target bpf -idirafter /usr/include/{platform.machine()}-linux-gnu -c {loaded.src} -o {path}"
    subprocess.run(command.split(), check=True)
    msg = refused(loaded, src=str(path))["msg"]
    assert msg.startswith(f"{path} has no type information (.BTF), which its maps need; compile it with clang -O2 -g")


def test_a_checksum_that_does_not_match(loaded):
    result = refused(loaded, checksum="0" * 64)
    assert result["msg"].startswith(f"checksum: {loaded.src} has the sha256 ")
    assert f", not {'0' * 64};" in result["msg"]


def test_a_checksum_that_is_none(loaded):
    assert "is not a sha256: 64 hex digits" in refused(loaded, checksum="md5:1234")["msg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {"nope": 1}}, "has no const volatile variable nope; it has first_port, label, last_port, offset"),
        ({"config": {"bpf_metadata_digest": "x"}}, "has no const volatile variable bpf_metadata_digest"),
        ({"config": {"last_port": 65536}}, "config: last_port: it takes a whole number from 0 to 65535, not 65536"),
        ({"config": {"quiet": "maybe"}}, "config: quiet: it takes true or false, not 'maybe'"),
        ({"config": {"label": "x" * 16}}, "config: label: char[16] holds at most 15 bytes of text, not 16"),
        ({"max_entries": {"nope": 1}}, "has no map nope; it has events, flows, peers"),
        ({"max_entries": {"peers": 0}}, "max_entries: peers takes a whole number of at least 1, not 0"),
        ({"max_entries": {"peers": "many"}}, "max_entries: peers takes a whole number of at least 1, not 'many'"),
        ({"defines": {"A B": 1}}, "defines: 'A B' is not a name in C"),
        ({"name": "a.b"}, "name: 'a.b' is not up to 32 letters, digits, - and _"),
    ],
)
def test_options_that_do_not_fit(loaded, options, message):
    assert message in refused(loaded, **options)["msg"]


def test_neither_clang_nor_bcc(pair):
    prefix = hiding(*clangs(), *bccs())
    msg = pair.run(prefix=prefix)["msg"]
    assert msg.startswith("compiler: neither clang nor bcc is installed on this host; run: ")
    assert "clang" in msg.split("run: ")[1]
    foretold = pair.run(prefix=prefix, check=True)
    assert foretold["changed"] is True
    assert "neither clang nor bcc is installed on this host" in foretold["notes"][0]
    assert pair.everything() == ({}, {})


def test_no_clang_where_clang_is_asked_for(pair):
    msg = pair.run(prefix=hiding(*clangs()), compiler="clang")["msg"]
    assert msg.startswith("compiler: clang is not installed on this host; run: ")


def test_what_is_loaded_needs_no_compiler_to_stay(loaded):
    assert loaded.run(prefix=hiding(*clangs(), *bccs()))["changed"] is False


def test_no_libbpf(pair):
    library = glob.glob("/usr/lib/*/libbpf.so.1") + glob.glob("/usr/lib64/libbpf.so.1")
    prefix = hiding(*(os.path.realpath(path) for path in library))
    msg = pair.run(prefix=prefix)["msg"]
    assert msg.startswith("libbpf.so.1 is not on this host; run: ")
    assert "libbpf" in msg.split("run: ")[1]
    foretold = pair.run(prefix=prefix, check=True)
    assert foretold["changed"] is True
    assert "libbpf.so.1 is not on this host" in foretold["notes"][0]


def test_not_root(pair):
    msg = pair.run(prefix=("unshare", "--user"))["msg"]
    assert msg == "not root: the kernel shows and changes BPF objects only for root; use become: true"


def test_a_pin_dir_outside_bpffs(loaded, tmp_path):
    (tmp_path / "file").write_text("")
    msg = refused(loaded, pin_dir=str(tmp_path))["msg"]
    assert msg.startswith(f"pin_dir: {tmp_path} is not on a bpffs but on ")
    assert msg.endswith("; use a directory below /sys/fs/bpf, or mount a bpffs with bpffs_pin state=mounted")


def test_a_pin_dir_with_a_dot(loaded):
    found = refused(loaded, pin_dir=f"{loaded.sandbox.bpffs}/a.b")
    assert "has a dot in a name, which a bpffs does not allow" in found["msg"]


def test_a_pin_dir_that_is_relative(loaded):
    assert "pin_dir: bpf is not an absolute path" in loaded.run(pin_dir="bpf")["msg"]


def foreign(path):
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
    with libbpf.load_program(libbpf.PROG_TYPE_SK_MSG, "intruder", code, libbpf.ATTACH_SK_MSG_VERDICT) as program:
        libbpf.pin(program, path)
        return libbpf.program_info(program).id


@pytest.mark.parametrize("name", ["verdict", "peers"])
def test_our_pin_is_taken_by_a_foreign_program(pair, name):
    pair.sandbox.pin_dir.mkdir(mode=0o700)
    number = foreign(str(pair.sandbox.pin_dir / name))
    msg = refused(pair)["msg"]
    assert msg.startswith(
        f"{pair.sandbox.pin_dir}/{name} is taken by a foreign program intruder (id {number}); remove it"
    )


def test_our_pin_is_a_directory(pair):
    (pair.sandbox.pin_dir / "verdict").mkdir(parents=True)
    assert f"{pair.sandbox.pin_dir}/verdict is taken by a foreign directory" in refused(pair)["msg"]


def test_two_objects_with_a_program_of_the_same_name(loaded):
    msg = refused(loaded, name="second")["msg"]
    assert msg.startswith(f"{loaded.sandbox.pin_dir}/sockops is the pin of pair, another program of this collection; ")


def test_no_source(pair):
    msg = pair.run(src=str(pair.src) + "x")["msg"]
    assert msg == f"cannot read {pair.src}x: No such file or directory"
    foretold = pair.run(src=str(pair.src) + "x", check=True)
    assert foretold["changed"] is True
    assert f"{pair.src}x is not there yet" in foretold["notes"][0]


def test_a_bare_host_in_check_mode(pair, tmp_path):
    foretold = pair.run(check=True, pin_dir=str(tmp_path / "not" / "mounted"), state_dir=str(tmp_path / "none"))
    assert foretold["changed"] is True
    assert "no bpffs is mounted" in foretold["notes"][0]
    assert "programs of pair: absent" in foretold["diff"]["before"]
    assert not (tmp_path / "not").exists()
    assert not (tmp_path / "none").exists()


def test_a_manifest_of_another_schema(loaded):
    path = loaded.sandbox.state_dir / manifest.CURRENT
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert "has schema 2, this version knows 1" in refused(loaded)["msg"]


def test_a_damaged_manifest_is_written_anew(loaded):
    (loaded.sandbox.state_dir / manifest.CURRENT).write_text('{"schema": 1, "pro')
    before = loaded.pins()
    result = loaded.run()
    assert result["changed"] is True
    assert "is damaged" in result["diff"]["before"]
    assert loaded.pins() == before
    assert loaded.run()["changed"] is False


def test_a_damaged_object_is_stored_anew(loaded):
    path = loaded.run()["object"]
    with open(path, "ab") as stream:
        stream.write(b"!")
    before = loaded.pins()
    assert loaded.run()["changed"] is True
    assert loaded.pins() == before
    assert loaded.run()["changed"] is False


def test_another_run_holds_the_lock(loaded):
    with lock.hold(str(loaded.sandbox.state_dir)):
        msg = loaded.run(lock_timeout=0)["msg"]
        assert f"another run (process {os.getpid()}) has held {loaded.sandbox.state_dir}/lock" in msg
        assert loaded.run(check=True)["changed"] is False


def test_a_full_disk(pair, tmp_path):
    state = tmp_path / "full"
    state.mkdir()
    fill = f'mount -t tmpfs -o size=16k none {state} && exec "$@"'
    result = pair.run(prefix=("unshare", "--mount", "sh", "-c", fill, "sh"), state_dir=str(state))
    assert result["msg"].startswith(f"cannot write {state}/objects/")
    assert result["msg"].endswith(": No space left on device")
    assert pair.pins() == {}
