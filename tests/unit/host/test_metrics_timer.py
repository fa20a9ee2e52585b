# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import files, metrics_timer


def test_the_timer_is_enabled_by_its_symlink_and_its_service_writes_the_file(tmp_path):
    made = metrics_timer.unit_files(str(tmp_path), "/opt/sbin/sockredirctl", "/srv/prom/sockredir.prom")
    assert sorted(made) == sorted(metrics_timer.paths(str(tmp_path)))
    service = made[str(tmp_path / "sockredir-metrics.service")].text
    assert "ExecStart=/opt/sbin/sockredirctl counters --textfile /srv/prom/sockredir.prom\n" in service
    timer = str(tmp_path / "sockredir-metrics.timer")
    assert made[str(tmp_path / "timers.target.wants" / "sockredir-metrics.timer")] == files.symlink(timer)


def test_the_file_is_known_by_the_service(tmp_path):
    assert metrics_timer.written_by(str(tmp_path)) is None
    for path, made in metrics_timer.unit_files(str(tmp_path), "/s", "/srv/prom/sockredir.prom").items():
        files.replace(path, made)
    assert metrics_timer.written_by(str(tmp_path)) == "/srv/prom/sockredir.prom"
    files.replace(metrics_timer.paths(str(tmp_path))[0], files.symlink("/dev/null"))
    assert metrics_timer.written_by(str(tmp_path)) is None


def test_a_directory_that_is_there(tmp_path):
    assert metrics_timer.metrics_file(f"{tmp_path}", False) == f"{tmp_path}/sockredir.prom"
    assert metrics_timer.metrics_file("/not/there/", True) == "/not/there/sockredir.prom"
    with pytest.raises(SockredirError, match="there is no directory /not/there; install the node exporter"):
        metrics_timer.metrics_file("/not/there", False)


@pytest.mark.parametrize("directory", ["prom", "/a b", "/a%h", "/a\nExecStart=/x", "/a\n", "/", "/$HOME", '/"'])
def test_no_directory_for_a_unit(directory):
    with pytest.raises(SockredirError, match="not a plain absolute path"):
        metrics_timer.metrics_file(directory, True)
