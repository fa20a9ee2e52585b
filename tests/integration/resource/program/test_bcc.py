# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The second compiler: the distribution's BCC.

If the running kernel's headers are not to be had, those of another kernel stand in: enough for programs that look
into no kernel struct, and to see that the ones of ``bpf/`` compile. Loading those is for the virtual machines.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import bcc, compilers
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import layout
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import objects
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.libbpf import Map
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.loader import Loadable
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel.map_spec import differences
from support.collection import ROOT
from support.connection import connection

PACKAGE = "/usr/lib/python3/dist-packages"


HEADERS = """
to=/lib/modules/$(uname -r) && mkdir -p /lib/modules && mount -t tmpfs none /lib/modules && mkdir "$to" &&
ln -s BUILD "$to/build" && ln -s SOURCE "$to/source" && exec "$@"
"""


def stand_in():
    """Words before a command that give it some kernel's headers as the running one's; None: there are none."""
    for build in sorted(glob.glob("/usr/src/linux-headers-*")):
        if os.path.exists(f"{build}/include/generated/autoconf.h"):
            common = "-".join(build.split("-")[:-1]) + "-common"
            source = common if os.path.isdir(common) else build
            return ("unshare", "--mount", "sh", "-c", HEADERS.replace("BUILD", build).replace("SOURCE", source), "sh")
    return None


NEEDS = pytest.mark.skipif(
    bcc.search().real is None or not (bcc.has_headers() or stand_in()),
    reason="needs the distribution's BCC and any kernel's headers (python3-bpfcc, linux-headers)",
)


def headers():
    return () if bcc.has_headers() else stand_in()


@pytest.fixture
def bcc_pair(pair):
    pair.options.update(src=str(pair.src.with_name("pair_bcc.c")), compiler="bcc")
    pair.src = pair.src.with_name("pair_bcc.c")
    return pair


@NEEDS
def test_a_pair_in_bccs_dialect_redirects(bcc_pair):
    done = bcc_pair.run(prefix=headers())
    assert done["failed"] is False, done.get("details")
    assert done["compiler"] == "bcc"
    assert {name: one["type"] for name, one in done["programs"].items()} == {"sockops": "sock_ops", "verdict": "sk_msg"}
    with Map.open_id(done["maps"]["peers"]["id"]) as peers:
        assert peers.info.value_size == 8
    loaded = objects.program_by_id(done["programs"]["verdict"]["id"])
    assert (loaded.digest, loaded.layout) == (done["digest"], 3)
    with bcc_pair.attached(), connection(bcc_pair.sandbox.cgroup) as live:
        live.send("client", 100000)
        assert live.redirected("client")
        assert live.receive("server", 100000)
    again = bcc_pair.run(prefix=headers())
    assert again["changed"] is False
    assert bcc_pair.run(compiler="auto")["changed"] is False


@NEEDS
def test_its_configuration_is_compiled_in(bcc_pair):
    done = bcc_pair.run(prefix=headers(), config={"first_port": 65535}, max_entries={"peers": 128})
    assert done["failed"] is False
    with Map.open_id(done["maps"]["peers"]["id"]) as peers:
        assert peers.info.max_entries == 128
    with bcc_pair.attached(), connection(bcc_pair.sandbox.cgroup) as live:
        live.send("client", 1000)
        assert not live.redirected("client")
    other = bcc_pair.run(prefix=headers(), config={"first_port": 1}, max_entries={"peers": 128})
    assert other["digest"] != done["digest"]


def masked(*directories):
    """What hides these directories, in front of another command."""
    return "".join(f"mount -t tmpfs none {path} && " for path in directories)


@NEEDS
def test_auto_takes_it_where_there_is_no_clang(bcc_pair):
    by_clang = bcc_pair.run(prefix=headers(), compiler="auto", check=True)
    assert "does not compile" in by_clang["msg"], "BCC's dialect is not clang's"
    hide = masked(*glob.glob("/usr/lib/llvm-*/bin"))
    done = bcc_pair.run(
        prefix=("unshare", "--mount", "sh", "-c", hide + 'exec "$@"', "sh", *headers()), compiler="auto"
    )
    assert done["failed"] is False, done
    assert done["compiler"] == "bcc"


CLANGS_PAIR = """
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 8);
    __type(key, __u32);
    __type(value, struct pair_flow);
} counters SEC(".maps");

const volatile __u32 bpf_metadata_layout = %d;

struct {
"""


@NEEDS
def test_the_other_compiler_takes_the_same_maps_over(pair):
    """clang, bcc and back: whoever compiled, a map with the same layout goes on."""
    text = pair.src.read_text().replace("struct {\n", "struct {" + CLANGS_PAIR % 3, 1)
    pair.src.write_text(text)
    first = pair.run(compiler="clang")
    assert first["failed"] is False, first
    other = pair.run(compiler="bcc", src=str(pair.src.with_name("pair_bcc.c")), prefix=headers())
    assert other["failed"] is False, other
    assert other["compiler"] == "bcc"
    assert other["maps"] == first["maps"]
    assert other["programs"]["verdict"]["id"] != first["programs"]["verdict"]["id"]
    back = pair.run(compiler="clang")
    assert back["maps"] == first["maps"]
    pair.src.write_text(text.replace("bpf_metadata_layout = 3", "bpf_metadata_layout = 4"))
    refused = pair.run(compiler="clang")
    assert "layout version: 3 pinned, 4 wanted" in str(refused)


COMPILE = """
import sys
sys.path.insert(0, sys.argv[1])
from support.collection import map_collection
map_collection()
from ansible_collections.ebpf.sockredir.plugins.module_utils.compile import compilers
with open(sys.argv[3], "wb") as out:
    out.write(compilers.compile_source(sys.argv[2], {}, compilers.BCC).data)
"""


def compiled_by_bcc(src, out):
    """The bytes of the object."""
    command = [*headers(), sys.executable, "-c", COMPILE, str(ROOT / "tests"), str(src), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def described(data):
    """Programs' types, maps and version of an object."""
    with Loadable(data, "shipped", "it", {}, {}) as found:
        types = {name: (one.prog_type, one.attach_type) for name, one in found.programs.items()}
        return types, found.maps, found.layout_version


@NEEDS
def test_the_shipped_source_has_the_same_maps_with_both_compilers(tmp_path):
    source = ROOT / "bpf" / "sockredir.bpf.c"
    types, maps, version = described(compiled_by_bcc(source, tmp_path / "bcc.o"))
    clangs = described(compilers.compile_source(str(source), {}, compilers.CLANG).data)
    assert (types, sorted(maps), version) == (clangs[0], sorted(clangs[1]), layout.LAYOUT)
    assert {name: differences(maps[name], one) for name, one in clangs[1].items()} == {name: [] for name in maps}


@NEEDS
def test_a_function_that_nobody_defines(bcc_pair):
    bcc_pair.edit("flow->messages++", "invented(flow)")
    msg = bcc_pair.run(prefix=headers())["msg"]
    assert "does not compile" in msg
    assert "invented" in msg
    assert bcc_pair.everything() == ({}, {})


@NEEDS
def test_its_errors_have_file_and_line(bcc_pair):
    bcc_pair.edit("ops->local_port", "ops->local_part")
    msg = bcc_pair.run(prefix=headers())["msg"]
    lines = bcc_pair.src.read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "local_part" in text)
    assert msg.startswith(f"{bcc_pair.src} does not compile: {bcc_pair.src}:{line}: no member named 'local_part'")
    (bcc_pair.src.parent / "pair_bcc.h").write_text("\n#error look here\n")
    msg = bcc_pair.run(prefix=headers())["msg"]
    assert f"does not compile: {bcc_pair.src.parent}/pair_bcc.h:2: look here" in msg
    assert bcc_pair.everything() == ({}, {})


@NEEDS
def test_a_function_that_is_no_program(bcc_pair):
    bcc_pair.edit("int verdict(struct sk_msg_md *msg)", "int verdict(struct bpf_sysctl *msg)")
    bcc_pair.edit("msg->remote_port", "msg->write")
    bcc_pair.edit("peers.msg_redirect_hash(msg", "peers.sk_redirect_hash(msg")
    msg = bcc_pair.run(prefix=headers())["msg"]
    assert "contains the function verdict, which is not a program that redirects sockets; make it static, or" in msg


def instead_of_bcc(prepare=""):
    """Words before a command that see another package in the place of BCC."""
    hide = f"mount -t tmpfs none {PACKAGE}/bcc && echo 'class Lattice: pass' > {PACKAGE}/bcc/__init__.py && "
    return ("unshare", "--mount", "sh", "-c", prepare + hide + 'exec "$@"', "sh")


@pytest.mark.skipif(not os.path.isdir(f"{PACKAGE}/bcc"), reason="needs the distribution's BCC, to hide it")
def test_the_wrong_package_is_called_so(bcc_pair):
    msg = bcc_pair.run(prefix=instead_of_bcc())["msg"]
    assert msg.startswith(f"compiler: {PACKAGE}/bcc is not BCC but another package of that name; run: ")
    assert "python3-b" in msg
    assert bcc_pair.everything() == ({}, {})


@NEEDS
def test_the_wrong_package_in_front_of_the_right_one_does_no_harm(bcc_pair):
    version = os.path.basename(os.path.realpath("/usr/bin/python3"))
    local = f"/usr/local/lib/{version}/dist-packages"
    if not os.path.isdir(local):
        pytest.skip(f"needs {local}, to put it there")
    shadow = f"mount -t tmpfs none {local} && mkdir {local}/bcc && echo 'x = 1' > {local}/bcc/__init__.py && "
    done = bcc_pair.run(prefix=("unshare", "--mount", "sh", "-c", shadow + 'exec "$@"', "sh", *headers()))
    assert done["failed"] is False, done


def test_no_bcc(bcc_pair, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    hide = f"mount --bind {empty} {PACKAGE} && " if os.path.isdir(PACKAGE) else ""
    msg = bcc_pair.run(prefix=("unshare", "--mount", "sh", "-c", hide + 'exec "$@"', "sh"))["msg"]
    assert msg.startswith("compiler: bcc is not installed on this host; run: ")


@pytest.mark.skipif(bcc.search().real is None, reason="needs the distribution's BCC")
def test_no_headers(bcc_pair):
    hide = "mount -t tmpfs none /lib/modules && " if os.path.isdir("/lib/modules") else ""
    if os.path.exists("/sys/kernel/kheaders.tar.xz"):
        pytest.skip("this kernel carries its headers in itself")
    prefix = ("unshare", "--mount", "sh", "-c", hide + 'exec "$@"', "sh")
    msg = bcc_pair.run(prefix=prefix)["msg"]
    release = os.uname().release
    assert msg.startswith(
        f"compiler: bcc needs the headers of the running kernel, {release}, which are not installed on this host"
    )
    foretold = bcc_pair.run(prefix=prefix, check=True)
    assert foretold["changed"] is True
    assert "bcc needs the headers" in foretold["notes"][0]
