# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import importlib.util
import os
import subprocess
import sys

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import files, install

PACKAGE_DIR = os.path.dirname(os.path.dirname(install.__file__))


@pytest.fixture
def places(tmp_path):
    return install.Places(str(tmp_path))


def test_what_travels_is_the_package_that_runs():
    package = install.travelled()
    assert {"__init__.py", "errors.py", "host/install.py", "change/step.py"} <= set(package)
    for name, text in package.items():
        with open(os.path.join(PACKAGE_DIR, name), encoding="utf-8", newline="") as source:
            assert source.read() == text, name


def test_install_upgrade_undo_and_remove(places, tmp_path):
    assert install.installed(places) == {}
    install.install(places, {"__init__.py": "", "sub/one.py": "ONE = 1\n"})
    assert install.installed(places) == {"__init__.py": "", "sub/one.py": "ONE = 1\n"}
    assert os.path.exists(importlib.util.cache_from_source(os.path.join(places.package, "sub", "one.py")))
    undo = install.install(places, {"__init__.py": "", "two.py": ""})
    assert sorted(install.installed(places)) == ["__init__.py", "two.py"]
    undo()
    assert sorted(install.installed(places)) == ["__init__.py", "sub/one.py"]
    install.remove(places)
    assert left(tmp_path) == ["lib"]


def test_undoing_the_first_install_leaves_nothing(places, tmp_path):
    install.install(places, {"__init__.py": ""})()
    assert left(tmp_path) == ["lib"]


def left(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_old_and_unfinished_versions_are_stale(places):
    install.install(places, {"__init__.py": ""})
    install.install(places, {"__init__.py": "# 2\n"})
    files.replace(os.path.join(places.library, "package-7", "half.py"), files.File(""))
    assert [os.path.basename(path) for path in install.stale(places)] == ["package-1", "package-7"]
    install.remove_stale(places)
    assert install.stale(places) == []
    assert install.installed(places) == {"__init__.py": "# 2\n"}


def test_a_failed_install_leaves_the_old_library(places, monkeypatch):
    install.install(places, {"__init__.py": ""})
    monkeypatch.setattr(files, "replace", _fails_at("two.py", files.replace))
    with pytest.raises(SockredirError, match="no space"):
        install.install(places, {"one.py": "", "two.py": ""})
    assert install.installed(places) == {"__init__.py": ""}
    assert install.stale(places) == []


def _fails_at(name, replace):
    def replace_or_fail(path, wanted):
        if path.endswith(name):
            raise SockredirError("no space")
        replace(path, wanted)

    return replace_or_fail


@pytest.mark.parametrize("change", [{"a.py": "x"}, {"b.py": ""}, {"a.py": "", "b.py": ""}, {}])
def test_the_summary_sees_every_difference(change):
    assert install.summary(change) != install.summary({"a.py": ""})


def test_the_launcher_starts_the_library_whatever_the_environment(places, tmp_path):
    install.install(
        places,
        {
            "__init__.py": "",
            "tool/__init__.py": "",
            "tool/main.py": "def main(state_dir):\n    print(state_dir)\n    return 3\n",
        },
    )
    files.replace(places.launcher, install.launcher(places, "/somewhere/state"))
    done = subprocess.run(
        [places.launcher],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "/somewhere/state\n"), done.stderr


def test_the_interpreter_is_the_distributions_where_it_is_new_enough(tmp_path, monkeypatch):
    old, new = tmp_path / "python3", tmp_path / "platform-python"
    for name, link in (("python3.6", old), ("python3.9", new)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
        link.symlink_to(tmp_path / name)
    monkeypatch.setattr(install, "_PYTHONS", (str(tmp_path / "missing"), str(old), str(new)))
    assert install.interpreter() == str(new)
    monkeypatch.setattr(install, "_PYTHONS", (str(old),))
    assert install.interpreter() == os.path.realpath(sys.executable)
