# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which steps sockredir_host takes: a row for each thing that can be found on a host."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings as settings_form
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.settings import Found
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.files import File, symlink
from ansible_collections.ebpf.sockredir.plugins.module_utils.host.install import Places
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.settings import plan as settings_plan
from ansible_collections.ebpf.sockredir.plugins.module_utils.resource.setup import plan as setup
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest

SETTINGS = settings_form.normal(
    {
        "mode": "enforce",
        "ports": ["80"],
        "exclude_ports": [],
        "cidrs": [],
        "cross_netns": False,
        "budget": 1 << 20,
        "demote_below": 30000,
        "demote_after": 32,
    }
)
PLACES = Places("/p")
UNIT = {"prefix": "/p", "unit_dir": "/u", "services": [], "path": "/u/s.service", "link": "/u/w/s.service"}
FILES = {
    PLACES.launcher: File("tool\n", 0o755),
    "/u/s.service": File("unit\n"),
    "/u/w/s.service": symlink("/u/s.service"),
}
WANTED = setup.Wanted(SETTINGS, "my.slice", PLACES, {"a.py": "A"}, FILES, UNIT, {"play": 1})


def committed(wanted=WANTED):
    document = manifest.empty("/b")
    setup.document_after(wanted, document)
    document["committed"] = True
    return document


def settings(**changes):
    return Found(b"", settings_form.to_layout({**SETTINGS, **changes}), "")


THERE = setup.Observed(
    document=committed(),
    damage=None,
    previous_damage=None,
    settings=settings(),
    package={"a.py": "A"},
    stale=[],
    files=dict(FILES),
)


def verbs(wanted, observed):
    return [step.verb for step in setup.plan(wanted, observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        ({}, []),
        (
            {"document": None, "package": {}, "files": {}, "settings": Found(b"", None, "settings: never written")},
            ["settings", "package", "file", "file", "file", "manifest"],
        ),
        ({"settings": settings(mode="drain")}, ["settings"]),
        ({"settings": settings(ports=["81"])}, ["settings"]),
        ({"settings": settings()._replace(trouble="half written")}, ["settings"]),
        ({"package": {"a.py": "B"}}, ["package", "package_stale"]),
        ({"package": {"a.py": "A", "b.py": ""}}, ["package", "package_stale"]),
        ({"package": {}}, ["package"]),
        ({"stale": ["/p/lib/sockredir/package-1"]}, ["package_stale"]),
        ({"files": {**FILES, "/u/s.service": None}}, ["file"]),
        ({"files": {**FILES, "/u/s.service": File("unit\n", 0o600)}}, ["file"]),
        ({"files": {**FILES, "/u/old.service.d/50.conf": File("drop-in\n")}}, ["file"]),
        ({"damage": "torn"}, ["manifest"]),
        ({"document": None, "damage": "torn"}, ["manifest"]),
        ({"document": {**committed(), "committed": False}}, ["manifest"]),
        ({"document": {**committed(), "wanted": {}}}, ["manifest"]),
        ({"document": {**committed(), "cgroup": "other.slice"}}, ["manifest"]),
        ({"previous_damage": "an object is gone"}, ["forget_previous"]),
    ],
)
def test_steps(observed, expected):
    assert verbs(WANTED, THERE._replace(**observed)) == expected


@pytest.mark.parametrize(
    ("committed_before", "changed", "expected"),
    [(True, False, []), (False, False, []), (True, True, ["manifest"]), (False, True, ["manifest"])],
)
def test_without_commit(committed_before, changed, expected):
    document = {**committed(), "committed": committed_before}
    if changed:
        document["wanted"] = {}
    steps = setup.plan(WANTED._replace(commit=False), THERE._replace(document=document))
    assert [step.verb for step in steps] == expected
    assert all(step.after["committed"] is False for step in steps if committed_before)


def test_nothing_is_loaded_yet():
    with pytest.raises(SockredirError, match="no settings map to write to; load the programs first"):
        setup.plan(WANTED, THERE._replace(settings=None))
    assert verbs(WANTED._replace(check=True), THERE._replace(settings=None)) == ["settings"]


@pytest.mark.parametrize("option", ["prefix", "unit_dir"])
def test_the_host_was_set_up_elsewhere(option):
    document = copy.deepcopy(committed())
    document["unit"][option] = "/elsewhere"
    with pytest.raises(SockredirError, match=f"{option}: this host was set up with /elsewhere, not /"):
        setup.plan(WANTED, THERE._replace(document=document))


def test_what_cannot_be_undone_comes_last():
    observed = THERE._replace(document=None, package={"a.py": "B"}, settings=settings(mode="drain"))
    assert verbs(WANTED, observed)[-2:] == ["manifest", "package_stale"]


def test_a_unit_that_is_not_wanted_any_more_goes():
    wanted = WANTED._replace(
        files={PLACES.launcher: FILES[PLACES.launcher]}, unit={"prefix": "/p", "unit_dir": "/u", "services": []}
    )
    steps = [step for step in setup.plan(wanted, THERE) if step.verb == "file"]
    assert {(step.subject, step.after) for step in steps} == {("/u/s.service", None), ("/u/w/s.service", None)}


def test_each_step_says_its_drift():
    observed = THERE._replace(
        settings=settings(mode="drain"), files={}, package={}, damage="torn", previous_damage="gone"
    )
    found = {step.subject: step.kind or None for step in setup.plan(WANTED, observed)}
    assert found == {
        "settings": "settings_changed",
        "/p/lib/sockredir/sockredir": "file_changed",
        "/p/sbin/sockredirctl": "file_changed",
        "/u/s.service": "unit_disabled",
        "/u/w/s.service": "unit_disabled",
        "manifest: previous": "object_changed",
        "manifest": "manifest_changed",
    }


def test_settings_layout_is_what_a_decoded_map_gives():
    raw = settings_value.encode_settings(settings_form.to_layout(SETTINGS))
    assert settings_plan.steps(SETTINGS, Found(raw, settings_value.decode_settings(raw), "")) == []
