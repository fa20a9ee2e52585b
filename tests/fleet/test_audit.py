# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit of a mixed fleet: each host broken in its own way is named rightly, in all formats, and left alone."""

from __future__ import annotations

import json
import os
import re
import struct
import uuid
from xml.etree import ElementTree

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import live
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest

# r0 = 1; exit
RETURN_ONE = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)


def program_id(pin):
    with libbpf.get(str(pin)) as program:
        return libbpf.program_info(program).id


def pin_missing(fleet, name):
    (fleet.pin_dir(name) / "counters").unlink()


def pin_replaced(fleet, name):
    with libbpf.load_program(hooks.SK_MSG.program_type, "other", RETURN_ONE, hooks.SK_MSG.attach_type) as other:
        libbpf.pin(other, str(fleet.pin_dir(name) / "new"))
    os.replace(fleet.pin_dir(name) / "new", fleet.pin_dir(name) / "verdict")


def verdict_lost(fleet, name):
    pins = fleet.pin_dir(name)
    attachments.detach_legacy(str(pins / "peers"), program_id(pins / "verdict"))


def receive_lost(fleet, name):
    pins = fleet.pin_dir(name)
    attachments.detach_legacy(str(pins / "peers"), program_id(pins / "receive"))


def program_replaced(fleet, name):
    (link,) = fleet.pin_dir(name).glob("link_sockops_*")
    kind = hooks.SOCK_OPS.attach_type
    other = libbpf.load_program(hooks.SOCK_OPS.program_type, "other", RETURN_ONE, kind)
    with other, libbpf.get(str(link)) as ours:
        libbpf.update_link(ours, other)


def attachment_missing(fleet, name):
    fleet.cgroup_of(name).rmdir()
    fleet.cgroup_of(name).mkdir()


def attached_twice(fleet, name):
    pins = fleet.pin_dir(name)
    elsewhere = fleet.bpffs / f"second_{name}"
    attachments.attach_link(str(fleet.cgroup_of(name)), program_id(pins / "sockops"), str(elsewhere))


def settings_changed(fleet, name):
    pins = str(fleet.pin_dir(name))
    settings = live.read_settings(pins).settings
    live.write_settings(pins, str(fleet.state_dir(name)), settings._replace(budget=settings.budget + 4096))


def object_changed(fleet, name):
    for file in (fleet.state_dir(name) / "objects").iterdir():
        file.write_bytes(file.read_bytes() + b"x")


def manifest_changed(fleet, name):
    (fleet.state_dir(name) / "current").resolve().write_text("{", encoding="utf-8")


def file_changed(fleet, name):
    (fleet.home(name) / "usr" / "lib" / "sockredir" / "sockredir" / HOSTILE_FILE).write_text("", encoding="utf-8")


def unit_disabled(fleet, name):
    os.unlink(systemd.wants_link(str(fleet.home(name) / "units")))


def unfinished(fleet, name):
    """What a run leaves that is killed before it commits."""
    state_dir = str(fleet.state_dir(name))
    manifest.edit(state_dir, lambda document: document["wanted"].update(version="2.0.0"))


def lost_at_reboot(fleet, name):
    manifest.amend(str(fleet.state_dir(name)), lambda document: document.update(boot_id=str(uuid.uuid4())))
    for pin in fleet.pin_dir(name).iterdir():
        pin.unlink()
    fleet.pin_dir(name).rmdir()
    attachment_missing(fleet, name)


BROKEN = (
    pin_missing,
    pin_replaced,
    verdict_lost,
    receive_lost,
    program_replaced,
    attachment_missing,
    attached_twice,
    settings_changed,
    object_changed,
    manifest_changed,
    file_changed,
    unit_disabled,
    unfinished,
    lost_at_reboot,
)
#: A name that a file may have, and that is no name in a page, an XML file or a terminal.
HOSTILE_FILE = "<img src=x onerror=\"document.title='owned'\">\n]]>\x1b[31m \u202e\U0001f600.py"
#: The same for a host.
HOSTILE_HOST = "<b onclick=\"document.title='owned'\">&amp; \u00fc \U0001f600"
#: Ten million characters of an error.
HUGE = "<script>document.title='owned'</script>\n" * 250_000
#: What only the modules of one host see: systemd at work, and a kernel of old without types.
SYSTEMD_RUNS = (
    "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/system /run/bin; printf '#!/bin/sh\\n' > /run/bin/systemctl;"
    " chmod 0755 /run/bin/systemctl; export PATH=/run/bin:$PATH"
)
OLD_KERNEL = "mount -t tmpfs tmpfs /sys/kernel/btf"
#: Hosts behind the broken ones: what they are.
WHOLE, NEVER, LOST, UNSUPPORTED = "compliant", "not_enabled", "unreachable", "unsupported"


def everything(fleet):
    """What an audit must not change: every file, pin, cgroup, and what is attached where."""
    files = {
        path.relative_to(fleet.base): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns, path.lstat().st_mode)
        for folder in (fleet.base / "hosts", fleet.bpffs)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }
    pins = {path: kernel_id(path) for path in fleet.bpffs.glob("*/*")}
    cgroups = {
        path.name: (path.stat().st_ino, attached(path)) for path in fleet.cgroup_of("").iterdir() if path.is_dir()
    }
    return files, pins, cgroups


def kernel_id(pin):
    infos = {"program": libbpf.program_info, "map": libbpf.map_info, "link": libbpf.link_info}
    with libbpf.get(str(pin)) as descriptor:
        return infos[libbpf.kind(descriptor)](descriptor).id


def attached(cgroup):
    with attachments.opened("cgroup", str(cgroup)) as target:
        return libbpf.query(target, hooks.SOCK_OPS.attach_type).program_ids


class Audited:
    """The mixed fleet, the run, and the reports that it wrote."""

    def __init__(self, fleet):
        self.fleet = fleet
        fleet.names.append(HOSTILE_HOST)
        self.broken = {kind.__name__: name for kind, name in zip(BROKEN, fleet.names)}
        self.others = dict(zip((WHOLE, NEVER, LOST, UNSUPPORTED), fleet.names[len(BROKEN) :]))
        enabled = [*self.broken.values(), self.others[WHOLE]]
        fleet.common = {"sockredir_build": "controller"}
        with_systemd, old = self.broken["unit_disabled"], self.others[UNSUPPORTED]
        extra = {
            with_systemd: {
                "ansible_python_interpreter": fleet.interpreter(with_systemd, SYSTEMD_RUNS),
                "sockredir_persist": True,
            },
            old: {"ansible_python_interpreter": fleet.interpreter(old, OLD_KERNEL)},
        }
        fleet.write_inventory(extra, {"enabled": enabled})
        done = fleet.play("enable_sockredir.yml", "--limit", "enabled")
        assert done.returncode == 0, done.stdout[-4000:]
        for kind in BROKEN:
            kind(fleet, self.broken[kind.__name__])
        fleet.lose(self.others[LOST])
        fleet.lose(HOSTILE_HOST, says=HUGE)
        self.before = everything(fleet)
        asked = {"report_query": "hosts[?status=='drifted'].[name, drift[].kind]", "sockredir_report_path": "out"}
        self.done = fleet.play("audit_sockredir.yml", "-e", json.dumps(asked))
        self.after = everything(fleet)
        out = fleet.base / "out"
        self.report = json.loads((out / "sockredir-audit.json").read_text(encoding="utf-8"))
        self.hosts = {host["name"]: host for host in self.report["hosts"]}
        self.junit = ElementTree.parse(out / "sockredir-audit.xml").getroot()
        self.page = (out / "sockredir-audit.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def audited(fleet_of):
    return Audited(fleet_of(len(BROKEN) + 4))


@pytest.mark.parametrize("kind", [kind.__name__ for kind in BROKEN])
def test_each_drift_is_named(audited, kind):
    host = audited.hosts[audited.broken[kind]]
    assert host["status"] == "drifted", host
    assert kind in {item["kind"] for item in host["drift"]}, host["drift"]
    for item in host["drift"]:
        assert item["subject"]
        assert item["before"] != item["after"]


@pytest.mark.parametrize("kind", [kind.__name__ for kind in BROKEN])
def test_each_drift_in_the_other_formats(audited, kind):
    name = audited.broken[kind]
    case = audited.junit.find(f".//testcase[@name='{name}']")
    assert case.find("failure").get("type") == "drifted"
    assert kind in case.find("failure").text
    row = audited.page[audited.page.index(f"<span>{name}</span>") :].split("</tbody>")[0]
    assert kind in row


def test_the_other_hosts(audited):
    found = {status: audited.hosts[name]["status"] for status, name in audited.others.items()}
    assert found == {status: status for status in audited.others}
    whole = audited.hosts[audited.others[WHOLE]]
    assert whole["drift"] == []
    assert whole["mode"] == "enforce"
    assert whole["counters"]["redirected"]["messages"] > 0  # the role's own proof went through it
    unsupported = audited.hosts[audited.others[UNSUPPORTED]]
    assert [item["name"] for item in unsupported["missing"] if item["scope"] == "load"] == ["btf"]
    assert "No route to host" in audited.hosts[audited.others[LOST]]["error"]
    assert audited.report["totals"] == {
        "hosts": len(BROKEN) + 5,
        "failed": 0,
        "unreachable": 2,
        "drifted": len(BROKEN),
        "unsupported": 1,
        "not_enabled": 1,
        "compliant": 1,
    }


def test_it_fails_and_answers_the_question(audited):
    assert audited.done.returncode == 2
    assert "attached_twice" in audited.done.stdout
    assert f"{len(BROKEN)} drifted" in audited.done.stdout
    assert "Traceback" not in audited.done.stdout + audited.done.stderr


def test_a_hostile_file_name_is_only_text(audited):
    host = audited.hosts[audited.broken["file_changed"]]
    (item,) = host["drift"]
    shown = "<img src=x onerror=\"document.title='owned'\"> ]]>\\x1b[31m \\u202e\U0001f600.py"
    assert item["subject"].endswith(shown)
    case = audited.junit.find(f".//testcase[@name='{host['name']}']")
    assert shown in case.find("failure").text
    assert "<img src=x" not in audited.page
    assert "&lt;img src=x onerror=" in audited.page


def test_a_hostile_name_and_ten_megabytes_of_error_are_only_text(audited):
    host = audited.hosts[HOSTILE_HOST]
    assert host["status"] == "unreachable"
    (size,) = re.findall(r"of ([\d,]+) characters shown", host["error"])
    assert int(size.replace(",", "")) > len(HUGE) >= 10_000_000
    assert len(host["error"]) < 400
    names = [case.get("name") for case in audited.junit.iter("testcase")]
    assert HOSTILE_HOST in names
    assert "<b onclick" not in audited.page
    assert "<script>document" not in audited.page
    assert len(audited.page) < 1_000_000


def test_it_changed_nothing(audited):
    assert audited.after == audited.before


def test_enable_repairs_each_and_says_so(audited):
    """After this the fleet is whole: it comes last."""
    fleet = audited.fleet
    done = fleet.play("enable_sockredir.yml", "--diff", "--limit", "enabled")
    assert done.returncode == 0, done.stdout[-4000:]
    (fleet.bpffs / f"second_{audited.broken['attached_twice']}").unlink(missing_ok=True)
    again = fleet.play("audit_sockredir.yml", "--limit", "enabled", "-e", "sockredir_report_path=out")
    assert again.returncode == 0, again.stdout[-4000:]
    report = json.loads((fleet.base / "out" / "sockredir-audit.json").read_text(encoding="utf-8"))
    assert report["totals"]["compliant"] == len(BROKEN) + 1
    assert manifest.current(str(fleet.state_dir(audited.broken["unfinished"])))["committed"]


def test_a_question_in_a_wrong_form_is_refused_before_a_host_is_asked(audited):
    done = audited.fleet.play("audit_sockredir.yml", "-e", json.dumps({"report_query": "hosts[?"}))
    assert done.returncode == 2
    assert "query 'hosts[?' at character 8: the expression ends too early" in done.stdout + done.stderr
    assert "Look at each host" not in done.stdout
