# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that name services: the services are put into slices, in an order in which no connection meets a closed port.

No systemd runs here, so a stand-in answers, and the tests are the processes of the services.
"""

from __future__ import annotations

import os
import socket
import uuid

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept_live
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import states
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment import change as attachment
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.attachment.plan import Wanted
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept import apply as intercept_apply
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept import change as intercept
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import change as program
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.program import source as program_source
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest
from support.host import cgroup2_mount, inside, remove_cgroup
from support.interception import FAR4, SOURCE, Namer, told
from support.systemd import Systemd

SERVICES = ["app.service", "other.service", "proxy.service"]
RELOAD = ["daemon-reload"]


class Served:
    """A set-up host with three services, whose accelerated cgroup is a slice's."""

    def __init__(self, managed, init):
        self.managed, self.init = managed, init
        self.stem = f"sockredirtest{uuid.uuid4().hex[:8]}"
        self.cgroup = cgroup2_mount() / f"{self.stem}.slice"
        self.apps, self.proxy = f"{self.stem}-web_apps.slice", f"{self.stem}-web_proxy.slice"

    def host(self, state="present", **options):
        return states.__dict__[state]({**self.managed.here(state, **options), "cgroup": str(self.cgroup)}, False)

    def set_up(self):
        self.managed.enable_here()
        sockops = Wanted(str(self.managed.sandbox.pin_dir / "sockops"), "cgroup", str(self.cgroup), create_cgroup=True)
        attachment.ensure(sockops, self.managed.places["state_dir"])
        self.host()
        request = program_source.Options("intercept", **self.managed.places, src=str(SOURCE))
        self.programs = set(program.present(request).programs) - {"inbound"}
        self.init.calls()

    def attach(self, slice_name):
        for name in self.programs:
            wanted = Wanted(self.managed.path(name), "cgroup", str(self.cgroup / slice_name), create_cgroup=True)
            attachment.ensure(wanted, self.managed.places["state_dir"])

    def write(self, port=None, check=False, **options):
        """The rules of interception: one for a port, or none."""
        rule = {"name": "web", "apps": ["app", "other"], "proxy": ["proxy"], "to": [port], **options.pop("rule", {})}
        usual = {"cgroup": str(self.cgroup), "unit_dir": str(self.managed.unit_dir), **self.managed.places}
        return intercept.ensure(intercept.Options([rule] if port else [], **{**usual, **options}), check)

    def everything(self):
        """All that a change of rules may change."""
        state = self.init.state
        units = {str(path): path.read_text() for path in self.managed.unit_dir.rglob("*") if path.is_file()}
        rules = intercept_live.read_rules(self.managed.places["pin_dir"])
        return manifest.current(self.managed.places["state_dir"]), units, rules, state["slice"], state["runs_in"]

    def runs_in(self):
        return self.init.state["runs_in"]

    def asked(self):
        """What the proxy is told of a connection of a service."""
        with inside(self.cgroup / self.apps / "app.service"):
            client = socket.create_connection((FAR4, 80), timeout=20)
        with client:
            return told(client)[0]


@pytest.fixture
def served(managed, tmp_path, monkeypatch):
    init = Systemd(tmp_path, managed.unit_dir, cgroup2_mount(), SERVICES)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "booted", lambda: True)
    made = Served(managed, init)
    try:
        made.set_up()
        yield made
        made.host("absent", restart_services=True)
    finally:
        remove_cgroup(made.cgroup)


@pytest.fixture
def proxy(served):
    """It listens before its service is restarted; its listener is made in the slice all the same."""
    served.attach(served.proxy)
    with inside(served.cgroup / served.proxy):
        listener = Namer()
    with listener:
        yield listener


def verbs(result):
    return [step.verb.rpartition(" ")[2] for step in result.steps]


MOVES = ["file", "reload", "start_slice", "restart"]


def test_services_come_into_slices_and_out_again(served, proxy):
    foretold = served.write(proxy.port, check=True)
    assert verbs(foretold) == [*MOVES, "listen", "settings", "file", *MOVES, "restart", "record"]
    assert served.init.calls() == []
    done = served.write(proxy.port, proxies_only=True)
    assert verbs(done) == [*MOVES, "listen", "record"]
    assert served.init.calls() == [RELOAD, ["start", "--", served.proxy], ["restart", "--", "proxy.service"]]
    assert intercept_live.read_rules(served.managed.places["pin_dir"]) == []
    assert not manifest.current(served.managed.places["state_dir"])["committed"]
    served.attach(served.apps)
    assert verbs(served.write(proxy.port)) == ["settings", "file", *MOVES, "restart", "record"]
    moved = [["restart", "--", name] for name in SERVICES[:2]]
    assert served.init.calls() == [RELOAD, ["start", "--", served.apps], *moved]
    assert served.runs_in() == {"app.service": served.apps, "other.service": served.apps, "proxy.service": served.proxy}
    assert served.asked() == f"{FAR4} 80"

    # All of it stays: another run has nothing to do, nor has the host's own part, and status finds no difference.
    assert [served.write(proxy.port, **more).steps for more in ({}, {"proxies_only": True}, {"check": True})] == [
        []
    ] * 3
    assert served.host().steps == []
    assert served.managed.drift_here() == []
    assert served.init.calls() == []

    # Who is no longer named leaves at its next start, or at once.
    fewer = {"rule": {"apps": ["app"]}}
    done = served.write(proxy.port, **fewer)
    assert (verbs(done), done.waiting) == (["file", "reload", "record"], ["other.service"])
    assert served.runs_in()["other.service"] == served.apps
    done = served.write(restart=True)
    assert verbs(done) == ["settings", "file", "file", "reload", "restart", "restart", "record"]
    assert [served.runs_in()[name] for name in ("app.service", "proxy.service")] == ["system.slice"] * 2
    assert list(served.managed.unit_dir.rglob("*-sockredir*.conf")) == []


def test_what_fails_leaves_rules_and_services_as_they_were_and_disabling_leaves_nothing(served, proxy, monkeypatch):
    systemd.stop("proxy.service")
    before = served.everything()
    monkeypatch.setattr(intercept_apply, "LISTEN_SECONDS", 0.2)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        with pytest.raises(SockredirError, match=rf"rule web: its proxy: nothing listens at 127.0.0.1:{port} or"):
            served.write(port, proxies_only=True)
    assert served.everything() == before
    assert verbs(served.write(proxy.port, proxies_only=True)) == [*MOVES[:3], "start", "listen", "record"]
    assert served.runs_in()["proxy.service"] == served.proxy
    served.attach(served.apps)
    before = served.everything()
    served.init.break_in(served.apps, "other.service")
    with pytest.raises(SockredirError, match=r"other.service cannot be restarted: .*Job for other.service failed"):
        served.write(proxy.port)
    assert served.everything() == before
    served.init.break_in("", "")

    # Disabling takes services out of their slices, and these away.
    served.write(proxy.port)
    served.init.calls()
    done = served.host("absent", restart_services=True)
    assert done.result["waiting_services"] == []
    assert served.runs_in() == dict.fromkeys(SERVICES, "system.slice")
    calls = served.init.calls()
    assert calls[:4] == [RELOAD, *[["restart", "--", name] for name in SERVICES]]
    assert {call[-1] for call in calls if call[0] == "stop"} == {served.apps, served.proxy, served.cgroup.name}
    assert not served.cgroup.exists()
    assert served.managed.listing() == []
