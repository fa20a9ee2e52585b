# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module imports its library from the zip file: what it takes from the host's own copy, and what never."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils import installed_bytecode
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import install

ITSELF = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "installed_bytecode.py"
CODE = "import sys\nWHERE = sys._getframe().f_code.co_filename\nVALUE = 1\n"
OTHER = CODE.replace("VALUE = 1", "VALUE = 2")
ASK = """\
import sys
sys.path.insert(0, sys.argv[1])
from package import installed_bytecode
installed_bytecode.install(sys.argv[2])
from package.part import one
print(one.VALUE, one.WHERE)
"""


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "payload.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("package/__init__.py", "")
        opened.writestr("package/installed_bytecode.py", ITSELF.read_text(encoding="utf-8"))
        opened.writestr("package/part/__init__.py", "")
        opened.writestr("package/part/one.py", CODE)
    return path


@pytest.fixture
def library(tmp_path):
    """The host's copy, below the prefix that its manifest names."""
    (tmp_path / "state").mkdir()
    document = {"unit": {"prefix": str(tmp_path / "usr")}}
    (tmp_path / "state" / "current").write_text(json.dumps(document), encoding="utf-8")
    path = tmp_path / "usr" / "lib" / "sockredir" / "sockredir"
    (path / "part").mkdir(parents=True)
    (path / "part" / "__init__.py").touch()
    (path / "part" / "one.py").write_text(CODE, encoding="utf-8")
    return path


def ask(archive, state_dir):
    """Value and place of the module that was imported."""
    command = [sys.executable, "-IS", "-c", ASK, str(archive), str(state_dir)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    value, where = done.stdout.split()
    return int(value), where


def byte_code(library):
    """Compile the host's copy, as its first use by the tool does."""
    source = library / "part" / "one.py"
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(source)], check=True)
    return next((library / "part" / "__pycache__").iterdir())


def test_without_a_copy_on_the_host_it_comes_from_the_zip_file(archive, tmp_path):
    assert ask(archive, tmp_path / "none") == (1, f"{archive}/package/part/one.py")


def test_the_same_text_on_the_host_is_taken_and_nothing_is_written(archive, library, tmp_path):
    assert ask(archive, tmp_path / "state") == (1, str(library / "part" / "one.py"))
    assert not list(library.rglob("__pycache__"))


def test_its_byte_code_is_taken(archive, library, tmp_path):
    """Byte code that says 2 where the text says 1 shows that it was run."""
    source = library / "part" / "one.py"
    source.write_text(OTHER, encoding="utf-8")
    compiled = byte_code(library)
    source.write_text(CODE, encoding="utf-8")
    status = source.stat()
    made_from = int(status.st_mtime).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
    data = compiled.read_bytes()
    compiled.write_bytes(data[:8] + made_from + data[16:])
    assert ask(archive, tmp_path / "state") == (2, str(source))


def test_another_text_on_the_host_never_is(archive, library, tmp_path):
    (library / "part" / "one.py").write_text(OTHER, encoding="utf-8")
    byte_code(library)
    assert ask(archive, tmp_path / "state") == (1, f"{archive}/package/part/one.py")


@pytest.mark.parametrize("keep", [0, 8, 16, 20, 40])
def test_damaged_byte_code_is_no_matter(archive, library, tmp_path, keep):
    compiled = byte_code(library)
    compiled.write_bytes(compiled.read_bytes()[:keep])
    assert ask(archive, tmp_path / "state")[0] == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"unit": null}', '{"unit": {"prefix": 1}}'])
def test_a_damaged_manifest_is_no_matter(archive, library, tmp_path, text):
    (tmp_path / "state" / "current").write_text(text, encoding="utf-8")
    assert ask(archive, tmp_path / "state") == (1, f"{archive}/package/part/one.py")


def test_it_looks_where_the_library_is_installed(tmp_path, library):
    """It may import nothing of the package, so it says once more what install.Places says."""
    assert installed_bytecode._library(str(tmp_path / "none")) == install.Places().package
    assert installed_bytecode._library(str(tmp_path / "state")) == install.Places(str(tmp_path / "usr")).package
