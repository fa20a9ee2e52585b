# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interception rules on a host that is set up: written, shown, verified, drifted from, restored."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import pytest
import yaml
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import intercept_live
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host import systemd
from ansible_collections.ebpf.sockredir.plugins.module_utils.kernel import attachments, hooks, libbpf
from ansible_collections.ebpf.sockredir.plugins.module_utils.operation import restore
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.intercept import change as intercept
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import lock
from ansible_collections.ebpf.sockredir.plugins.modules import sockmap_info
from support.host import cgroup2_mount, inside
from support.intercepting import Intercepting
from support.interception import FAR4, Namer, told
from support.module import run_module
from support.systemd import Systemd

_RETURN_ONE = bytes.fromhex("b7000000010000009500000000000000")


@pytest.fixture(scope="module")
def loaded(enabled):
    own = Intercepting(enabled)
    own.load()
    return own


@pytest.fixture
def intercepting(loaded):
    """A host that others use before and after, each time without rules."""
    yield loaded
    loaded.write()


@pytest.fixture
def proxy(intercepting):
    """The proxy of the shared host."""
    with intercepting.namer() as own:
        yield own


def test_rules_are_written_changed_and_shown(intercepting, proxy):
    rule = intercepting.rule(proxy.port)
    checked = intercepting.write(rule, check=True)
    assert not checked["failed"], checked["msg"]
    assert checked["changed"]
    assert intercepting.held() == []
    done = intercepting.write(rule)
    assert done["changed"], done
    assert done["diff"] == checked["diff"]
    assert "127.0.0.1:" in done["diff"]["after"]
    assert intercepting.asked() == f"{FAR4} 80"
    for check in (False, True):
        assert not intercepting.write(rule, check=check)["changed"]
    assert intercepting.managed.ctl("status").returncode == 0

    shown = json.loads(intercepting.managed.ctl("intercepts", "--json").stdout)
    assert shown["pending"] == 0
    (one,) = shown["rules"]
    assert one["listening"] == {f"127.0.0.1:{proxy.port}": True, f"[::1]:{proxy.port}": False}
    assert (one["events"]["rewritten"], one["events"]["claimed"], one["events"]["answered"]) == (1, 1, 1)
    info = run_module("sockmap_info", {"gather": ["intercepts"], "state_dir": intercepting.managed.places["state_dir"]})
    assert info["intercepts"] == shown
    described = yaml.safe_load(sockmap_info.RETURN)["intercepts"]["contains"]
    assert (set(described), set(described["rules"]["contains"])) == (set(shown), set(one))
    lines = intercepting.managed.ctl("intercepts").stdout
    assert f"127.0.0.1:{proxy.port}: listening" in lines
    assert f"[::1]:{proxy.port}: nobody listens: refuse" in lines

    metrics = intercepting.managed.ctl("counters", "--prometheus").stdout
    assert 'sockredir_intercept_events_total{rule="web",event="claimed"} 1\n' in metrics

    other = intercepting.rule(proxy.port, ports=["443"])
    assert intercepting.write(other)["changed"]
    assert intercepting.held()[0].ports == ((443, 443),)
    assert intercepting.write()["changed"]
    assert intercepting.held() == []
    assert not intercepting.write()["changed"]
    assert "nothing is intercepted" in intercepting.managed.ctl("intercepts").stdout


def test_a_rule_of_a_new_name_begins_to_count_at_0(intercepting, proxy):
    intercepting.write(intercepting.rule(proxy.port))
    intercepting.asked()
    intercepting.write()
    intercepting.write(intercepting.rule(proxy.port, name="later"))
    shown = json.loads(intercepting.managed.ctl("intercepts", "--json").stdout)
    assert not any(shown["rules"][0]["events"].values())


def test_what_cannot_work_changes_nothing(intercepting, proxy):
    rule = intercepting.rule(proxy.port)
    intercepting.write(rule)
    before = intercepting.held()
    wrong = [
        ([intercepting.rule(0)], "to: '0' is not a port"),
        ([rule, rule], "another rule has this name"),
        ([intercepting.rule(1, cgroup=f"{intercepting.apps}/gone", name="x")], "gone does not exist; create it"),
        ([intercepting.rule(1, proxy_user="nobody-of-this-name")], "nobody-of-this-name is unknown on this host"),
        ([intercepting.rule(1, cgroup="/")], "not attached to cgroup /: connect4"),
        ([intercepting.rule(1, prots=[5])], "Unsupported parameters"),
    ]
    for rules, said in wrong:
        failed = intercepting.write(*rules)
        assert failed["failed"]
        assert said in failed["msg"]
        assert "\n" not in failed["msg"]
        assert intercepting.held() == before
    assert not intercepting.write(rule)["changed"]


def test_in_check_mode_a_cgroup_may_be_missing_that_something_known_makes(managed, tmp_path, monkeypatch):
    """Nothing is enabled here; what runs below asks a stand-in for systemd."""
    Systemd(tmp_path, managed.unit_dir, cgroup2_mount(), ["a.service"], "web-apps.slice")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "booted", lambda: True)
    accelerated, there = "sockredirtestnone.slice", str(managed.sandbox.cgroup)

    places = {key: managed.places[key] for key in ("pin_dir", "state_dir")}

    def refused(cgroup, accelerated=accelerated):
        rule = {"name": "web", "cgroup": there, "proxy_cgroup": cgroup, "to": [15001]}
        try:
            intercept.ensure(intercept.Options([rule], **places, cgroup=accelerated), check=True)
        except SockredirError as error:
            return str(error)
        return None

    assert refused(accelerated) is None
    assert refused("web.slice/web-apps.slice") is None
    for unknown in ("web-apps.slice", "web.slice/web-aps.slice", f"{accelerated}/aps", f"{there}/aps"):
        assert refused(unknown).startswith("rule web: cgroup ")
        assert refused(unknown).endswith(" does not exist; create it, start its slice, or correct the name")
        assert refused(unknown, accelerated=None) is None
    unknown = {"name": "web", "apps": ["b", "a"], "proxy": ["c"], "to": [0]}
    with pytest.raises(SockredirError) as caught:
        intercept.ensure(intercept.Options([unknown], **places, cgroup=accelerated), check=True)
    assert str(caught.value) == (
        "rule web: to: '0' is not a port from 1 to 65535, or an address with one; write 15001, 127.0.0.1:15001 or"
        " [::1]:15001; rule web: apps: systemd does not know b.service; install it, or correct the name;"
        " rule web: proxy: systemd does not know c.service; install it, or correct the name"
    )
    assert "is on tmpfs, not on cgroup2" in refused("/dev/shm/x", accelerated=None)
    assert managed.listing() == []


def test_it_waits_for_its_turn(intercepting, proxy):
    state_dir, rule = intercepting.managed.sandbox.state_dir, intercepting.rule(proxy.port)
    with lock.hold(str(state_dir), 0):
        refused = intercepting.write(rule, lock_timeout=0)
        assert f"another run (process {os.getpid()}) has held {state_dir}/lock for the last 0 s" in refused["msg"]
        assert intercepting.held() == []
        assert intercepting.write(rule, check=True)["changed"], "who only looks needs no turn"
    assert intercepting.write(rule, lock_timeout=0)["changed"]


def verified(managed) -> tuple:
    """What verify says of the only rule, and its exit code."""
    done = managed.ctl("verify", "--json")
    assert done.stdout, done.stderr
    (found,) = json.loads(done.stdout)["intercepts"]
    return found, done.returncode


def test_verify_makes_one_connection_for_each_rule(intercepting):
    with intercepting.namer(reads=1) as proxy:
        to = f"127.0.0.1:{proxy.port}"
        intercepting.write(intercepting.rule(proxy.port, to=[to]))
        found, code = verified(intercepting.managed)
    assert (found["asked"], found["to"], found["told"], found["wrong"]) == ("192.0.2.1:9", to, "192.0.2.1:9", None)
    assert found["by"].endswith(f"(process {os.getpid()})")
    assert (code, proxy.told) == (0, 1), "one connection, and no more"


def test_verify_of_a_proxy_that_closes_at_once_goes_by_the_counters(intercepting, proxy):
    intercepting.write(intercepting.rule(proxy.port))
    found, code = verified(intercepting.managed)
    assert (found["wrong"], code) == (None, 0)
    assert found["told"] in (None, "192.0.2.1:9")


def test_verify_without_a_proxy_and_with_one_outside_its_cgroup(intercepting, proxy):
    managed, port = intercepting.managed, proxy.port
    proxy.close()
    for way in ("refuse", "direct"):
        intercepting.write(intercepting.rule(port, when_down=way, cidrs=["127.0.0.64/26"], ports=["80"]))
        found, code = verified(managed)
        assert (found["asked"], found["told"], found["wrong"], code) == ("127.0.0.126:80", "127.0.0.126:80", None, 0)
        assert found["by"] == "a listener of its own"
    with Namer(port=port, reads=1):
        found, code = verified(managed)
        assert code == 1
        assert found["wrong"].endswith("is told no destination for 127.0.0.126:80")
        assert "wrong: rule web: " in managed.ctl("verify").stdout


def test_verify_names_what_keeps_a_connection_from_its_proxy(intercepting, proxy):
    managed = intercepting.managed
    intercepting.write(intercepting.rule(proxy.port, cidrs=["127.0.0.64/26"]))
    intercept_live.write_rules(managed.places["pin_dir"], [])
    found, code = verified(managed)
    assert (code, found["told"]) == (1, None)
    assert "was refused: nobody took it at" in found["wrong"]
    with socket.create_server(("127.0.0.126", 9)):
        found, code = verified(managed)
    assert found["wrong"] == "a connection to 127.0.0.126:9 was not intercepted: it went to 127.0.0.126:9"


def test_verify_of_a_proxy_that_does_not_accept(intercepting):
    with inside(intercepting.proxy):
        stuck = socket.create_server(("127.0.0.1", 0))
    with stuck:
        intercepting.write(intercepting.rule(stuck.getsockname()[1]))
        found, code = verified(intercepting.managed)
    assert (found["wrong"], code) == (None, 0)
    assert found["unproved"] == "the proxy has not accepted the connection within 3 s"


def test_without_the_programs_it_says_so(managed):
    managed.enable_here()
    own = Intercepting(managed)
    own.apps.mkdir()
    own.proxy.mkdir()
    failed = own.write(own.rule(15001))
    assert "load intercept.bpf.c with sockmap_program" in failed["msg"]
    assert "no interception programs are loaded" in managed.ctl("intercepts").stderr
    assert own.write(own.rule(15001), check=True)["changed"]


def test_drift_is_named_and_restored(intercepting, proxy):
    managed = intercepting.managed
    intercepting.write(intercepting.rule(proxy.port))
    held = intercepting.held()
    intercept_live.write_rules(managed.places["pin_dir"], [])
    assert managed.kinds() == ["settings_changed"]
    restore.restore(managed.places["state_dir"])
    assert intercepting.held() == held
    assert managed.kinds() == []


def test_what_belongs_to_others_is_named_and_left_alone(intercepting, proxy):
    managed, hook = intercepting.managed, hooks.SOCK_ADDR[0]
    intercepting.write(intercepting.rule(proxy.port))
    port = proxy.port
    assert managed.kinds() == []
    proxy.close()
    with Namer(port=port):
        assert managed.kinds() == ["proxy_outside"]
        assert not intercepting.write(intercepting.rule(port))["changed"]
    with intercepting.namer(port):
        assert managed.kinds() == []
        kind = hook.attach_type
        above = attachments.opened("cgroup", str(managed.sandbox.cgroup))
        with above as target, libbpf.load_program(hook.program_type, "other", _RETURN_ONE, kind) as other:
            libbpf.attach(other, target, kind, libbpf.F_ALLOW_MULTI)
            (named,) = managed.status()["drift"]
            assert (named["kind"], named["subject"]) == ("connect_hook", f"{managed.sandbox.cgroup}: {hook.name}")
            assert f"(id {libbpf.program_info(other).id})" in named["before"]
            assert managed.ctl("restore").returncode == 0
            libbpf.detach(other, target, kind)
        assert managed.kinds() == []


def test_a_connection_that_is_older_than_the_rule_is_noted(intercepting, proxy):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.77", 0)))
        port = server.getsockname()[1]
        with inside(intercepting.apps):
            stack.enter_context(socket.create_connection(server.getsockname()))
        intercepting.write(intercepting.rule(proxy.port, cidrs=["127.0.0.0/8"]))
        with inside(intercepting.apps):
            assert told(stack.enter_context(socket.create_connection(server.getsockname())))
            shown = json.loads(intercepting.managed.ctl("intercepts", "--json").stdout)
            (note,) = [each for each in shown["notes"] if each["kind"] == "not_intercepted"]
            assert "note: rule web: 1 connection not intercepted" in intercepting.managed.ctl("intercepts").stdout
    assert (note["rule"], note["found"].split(",")[0]) == ("web", "1 connection not intercepted")
    assert note["found"].endswith(f"such as to 127.0.0.77:{port}")
    assert intercepting.managed.kinds() == [], "it is no difference from the manifest"
