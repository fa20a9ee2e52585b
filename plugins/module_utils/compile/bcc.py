# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile with the distribution's BCC, and turn the result into an ordinary object file.

BCC lives in the distribution's Python and compiles against the headers of the running kernel, so what it makes is for
this kernel alone. It runs in a process of its own: it brings a compiler along, creates the maps in passing, and prints
where it likes.
"""

from __future__ import annotations

import glob
import json
import os
import re
import sys
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from ..command import run
from ..errors import SockredirError
from ..kernel import hooks
from . import assemble

_INTERPRETERS = ("/usr/bin/python3", "/usr/libexec/platform-python", sys.executable)
_PROBE_SECONDS = 60
_TIMEOUT_SECONDS = 900  # 36 s on an emulated CPU
_MAX_INCLUDES = 512
#: A function that nobody defines would be an instruction that no kernel takes.
_FLAGS = ("-D__BCC__", "-Werror=implicit-function-declaration")
_INCLUDE = re.compile(r'[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"')
_SOCKET_MAPS = (15, 18)
_RINGBUF = 27
_LD_IMM64, _PSEUDO_MAP_FD, _MOV_IMM = 0x18, 1, 0xB7
#: What a program's parameter says of its kind.
_PARAMETER = r"\b%s\s*\(\s*struct\s+(\w+)\s*\*"
_CONSTANT = "bpf_metadata_"
_DIGEST_BYTES = 72

# Looks for the package without importing it; the first one found is what "import bcc" would give.
_PROBE = """
import json, os, sys
found = [os.path.join(p, "bcc") for p in sys.path if os.path.isfile(os.path.join(p, "bcc", "__init__.py"))]
found += [os.path.join(p, "bcc.py") for p in sys.path if os.path.isfile(os.path.join(p, "bcc.py"))]
print(json.dumps(found))
"""

# Standard output is for the answer alone, so BCC gets standard error for it.
_DRIVER = """
import ctypes, json, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
asked = json.load(sys.stdin)
sys.path.insert(0, asked["path"])
from bcc import BPF
from bcc.libbcc import lib
try:
    module = BPF(text=asked["text"], cflags=asked["cflags"])
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit(1)
lib.bpf_num_tables.restype = ctypes.c_ulonglong
lib.bpf_num_tables.argtypes = [ctypes.c_void_p]
lib.bpf_table_name.restype = ctypes.c_char_p
lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]

def about(fd):
    with open("/proc/self/fdinfo/%d" % fd) as lines:
        return dict(line.rstrip().split(":\\t", 1) for line in lines if ":\\t" in line)

functions, tables = [], []
for index in range(lib.bpf_num_functions(module.module)):
    name = lib.bpf_function_name(module.module, index)
    start, size = lib.bpf_function_start(module.module, name), lib.bpf_function_size(module.module, name)
    functions.append({"name": name.decode(), "code": ctypes.string_at(start, size).hex()})
for index in range(lib.bpf_num_tables(module.module)):
    name = lib.bpf_table_name(module.module, index)
    fd = lib.bpf_table_fd(module.module, name)
    tables.append({"name": name.decode(), "fd": fd, "info": about(fd)})
licence = (lib.bpf_module_license(module.module) or b"GPL").decode()
json.dump({"functions": functions, "tables": tables, "licence": licence}, answer)
answer.flush()
"""


class Found(NamedTuple):
    """:ivar interpreter: the Python that BCC belongs to.
    :ivar path: the directory that its package is in.
    """

    interpreter: str
    path: str


class Search(NamedTuple):
    """:ivar real: BCC; None if there is none.
    :ivar others: packages that are only called ``bcc``, such as the package index's.
    """

    real: Optional[Found]
    others: List[str]


def search() -> Search:
    """Look for BCC under the distribution's Python. Nothing is imported."""
    others: List[str] = []
    for interpreter in dict.fromkeys(path for path in _INTERPRETERS if path and os.access(path, os.X_OK)):
        for package in _packages(interpreter):
            if os.path.exists(os.path.join(package, "libbcc.py")):
                return Search(Found(interpreter, os.path.dirname(package)), others)
            others.append(package)
    return Search(None, others)


def _packages(interpreter: str) -> List[str]:
    done = run([interpreter, "-c", _PROBE], _PROBE_SECONDS, "/")
    try:
        return list(json.loads(done.stdout))
    except ValueError:  # an interpreter that does not work is not the one
        return []


def has_headers() -> bool:
    """Whether the headers of the running kernel are here, in one of the forms that BCC takes."""
    modules = f"/lib/modules/{os.uname().release}"
    kheaders = ["/sys/kernel/kheaders.tar.xz", *glob.glob(f"{modules}/kernel/kernel/kheaders.ko*")]
    return os.path.isdir(f"{modules}/build") or any(os.path.exists(path) for path in kheaders)


def flatten(src: str) -> str:
    """The source as one text: BCC rewrites what is in the main file, and only that."""
    return "".join(_lines(os.path.abspath(src), [_MAX_INCLUDES]))


def _lines(path: str, left: List[int]) -> Iterator[str]:
    left[0] -= 1
    if left[0] < 0:
        raise SockredirError(f"{path} includes itself, or more than {_MAX_INCLUDES} files")
    with open(path, encoding="utf-8", errors="surrogateescape") as lines:
        yield f'#line 1 "{path}"\n'
        for number, line in enumerate(lines, 1):
            match = _INCLUDE.match(line)
            included = os.path.normpath(os.path.join(os.path.dirname(path), match[1])) if match else ""
            if included and os.path.isfile(included):
                yield from _lines(included, left)
                yield f'\n#line {number + 1} "{path}"\n'
            else:
                yield line


class Failed(Exception):
    """BCC refused; its text is all that it said."""


def compile_source(found: Found, src: str, options: List[str]) -> bytes:
    """An object file for the running kernel.

    :param options: for BCC's clang.
    :raises Failed: BCC refuses the source.
    :raises SockredirError: what it made cannot be used.
    """
    text = flatten(src)
    asked = {"path": found.path, "text": text, "cflags": [*_FLAGS, *options]}
    done = run([found.interpreter, "-c", _DRIVER], _TIMEOUT_SECONDS, "/", json.dumps(asked).encode("ascii"))
    if done.returncode:
        raise Failed(done.stderr.decode("utf-8", "replace"))
    return _object(json.loads(done.stdout), text, src)


def _object(made: Dict[str, Any], text: str, src: str) -> bytes:
    names = {table["fd"]: table["name"] for table in made["tables"]}
    functions = [one for one in made["functions"] if not one["name"].startswith(_CONSTANT)]
    programs = [_program(one, names, text, src) for one in functions]
    constants: Dict[str, assemble.Value] = {_CONSTANT + "digest": bytes(_DIGEST_BYTES)}
    constants.update({one["name"]: _constant(one) for one in made["functions"] if one not in functions})
    return assemble.build(programs, [_map(table) for table in made["tables"]], constants, made["licence"])


def _program(function: Dict[str, Any], names: Dict[int, str], text: str, src: str) -> assemble.Program:
    parameter = re.search(_PARAMETER % re.escape(function["name"]), text)
    hook = _hook(function["name"], parameter[1] if parameter else "", src)
    code = bytes.fromhex(function["code"])
    return assemble.Program(function["name"], f"{hook.section}/bcc", code, dict(_maps(code, names)))


def _hook(name: str, struct: str, src: str) -> hooks.Hook:
    """Where a function's program belongs, of which BCC knows only the parameter."""
    fitting = hooks.of_context(struct)
    if len(fitting) > 1:
        raise SockredirError(
            f"{src} contains the function {name}, and bcc cannot tell to which of {len(fitting)} hooks that take a"
            f" struct {struct} it belongs",
            "compile it with clang: compiler: clang",
        )
    if not fitting:
        structs = dict.fromkeys(hook.context for hook in hooks.HOOKS if len(hooks.of_context(hook.context)) == 1)
        raise SockredirError(
            f"{src} contains the function {name}, which is not a program that redirects sockets",
            f"make it static, or let it take a {' or a '.join(f'struct {one} *' for one in structs)}",
        )
    return fitting[0]


def _maps(code: bytes, names: Dict[int, str]) -> Iterator[Any]:
    offset = 0
    while offset < len(code):
        wide = code[offset] == _LD_IMM64
        if wide and code[offset + 1] >> 4 == _PSEUDO_MAP_FD:
            yield offset, names[int.from_bytes(code[offset + 4 : offset + 8], "little")]
        offset += 16 if wide else 8


def _constant(function: Dict[str, Any]) -> int:
    """What a function returns that has nothing but a ``return`` of a number: BCC has no global constants."""
    code = bytes.fromhex(function["code"])
    if code[0] != _MOV_IMM or len(code) != 16:
        raise SockredirError(f"{function['name']} has to return a number and do nothing else")
    return int.from_bytes(code[4:8], "little")


def _map(table: Dict[str, Any]) -> assemble.Map:
    number = {
        key: int(value, 0)
        for key, value in table["info"].items()
        if key.split("_")[0] in ("map", "key", "value", "max")
    }
    kind, value_size = number["map_type"], number["value_size"]
    if kind in _SOCKET_MAPS:
        value_size = 8  # BCC's are of 4 bytes; user space can look up cookies, which have 8
    return assemble.Map(table["name"], kind, number["key_size"], value_size, number["max_entries"], number["map_flags"])
