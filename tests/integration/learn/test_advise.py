# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook learns on a host without this collection, changes nothing there, and writes the report."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import yaml
from support.host import in_cgroup
from support.playbook import play

#: Talks until its standard input ends.
_TALKER = """
import select, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
print(listener.getsockname()[1], flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    for _turn in range(10):
        client.sendall(b"question")
        server.recv(100)
        server.sendall(b"answer")
        client.recv(100)
"""


@contextlib.contextmanager
def talking(cgroup):
    """A process in the cgroup that talks meanwhile; the server's port."""
    command = in_cgroup(cgroup, [sys.executable, "-c", _TALKER])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def advise(host, where, *options, measure=False):
    variables = {
        "sockredir_learn_measure": measure,
        "sockredir_hosts": "localhost",
        "sockredir_learn_seconds": 2,
        "sockredir_learn_cgroup": str(host.cgroup),
        "sockredir_report_path": str(where),
    }
    return play("advise-sockredir.yml", variables, options)


def test_advice(host, tmp_path):
    with talking(host.cgroup) as good:
        played = advise(host, tmp_path).ok()
    written = {"Write the report", "Write the page", "Write the variables of each group whose hosts agree"}
    assert set(played.changed) == written
    report = json.loads((tmp_path / "sockredir-advice.json").read_text())
    assert [(each["name"], each["status"]) for each in report["hosts"]] == [("localhost", "learned")]
    (entry,) = report["ports"]
    assert (entry["port"], entry["verdict"], entry["hosts"]) == (good, "accelerate", {"accelerate": ["localhost"]})
    variables = yaml.safe_load((tmp_path / "sockredir-advice-all.yml").read_text())
    assert variables == {"sockredir_ports": [good], "sockredir_exclude_ports": []}
    assert str(good) in played.output


def test_it_does_the_same_in_check_mode_and_measures_what_there_is_to_gain(host, tmp_path):
    with talking(host.cgroup) as good:
        advise(host, tmp_path, "--check", measure=True).ok()
    report = json.loads((tmp_path / "sockredir-advice.json").read_text())
    assert [entry["port"] for entry in report["ports"]] == [good]
    assert [each["speeds"]["source"] for each in report["hosts"]] == ["measured"]


def test_a_host_that_cannot_learn_is_in_the_report_and_fails_the_run(host, tmp_path):
    host.cgroup.rmdir()
    played = advise(host, tmp_path)
    assert played.code != 0
    (entry,) = json.loads((tmp_path / "sockredir-advice.json").read_text())["hosts"]
    assert entry["status"] == "failed"
    assert entry["reason"] == f"cgroup {host.cgroup} does not exist; name one that does, or choose none"
    assert f"localhost: {entry['reason']}" in played.output
