# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: written whole, read strictly, with what a rollback needs."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils import atomic_file
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError
from ansible_collections.ebpf.sockredir.plugins.module_utils.state import manifest


@pytest.fixture
def state(tmp_path):
    return str(tmp_path / "state")


def want(version):
    def change(document):
        document["programs"]["pair"] = {"digest": version, "program_ids": {}, "map_ids": {}}

    return change


def identify(number):
    def change(document):
        document["programs"]["pair"]["program_ids"] = {"verdict": number}

    return change


def read(state, name):
    with open(os.path.join(state, name), encoding="utf-8") as stream:
        return json.load(stream)


def damage(state, text):
    with open(os.path.realpath(os.path.join(state, manifest.CURRENT)), "w", encoding="utf-8") as stream:
        stream.write(text)


def digests(state):
    return [
        found and found["programs"]["pair"]["digest"] for found in (manifest.current(state), manifest.previous(state))
    ]


def test_nothing_there(state):
    assert manifest.current(state) is None
    assert manifest.previous(state) is None
    assert not os.path.exists(state)


def test_the_first_edit_makes_a_private_directory_and_an_uncommitted_manifest(state):
    manifest.edit(state, want("v1"))
    assert os.stat(state).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(state, manifest.CURRENT)).st_mode & 0o777 == 0o600
    assert manifest.current(state)["committed"] is False
    assert manifest.previous(state) is None


def test_previous_is_the_last_committed_one(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    assert digests(state) == ["v2", "v1"]
    manifest.edit(state, want("v3"))
    assert digests(state) == ["v3", "v1"]
    assert manifest.previous(state)["committed"] is True
    manifest.commit(state)
    assert digests(state) == ["v3", "v1"]
    manifest.edit(state, want("v4"))
    assert digests(state) == ["v4", "v3"]


def test_an_edit_that_changes_nothing_writes_nothing(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    before = os.readlink(os.path.join(state, manifest.CURRENT))
    manifest.edit(state, want("v1"))
    assert os.readlink(os.path.join(state, manifest.CURRENT)) == before
    assert manifest.current(state)["committed"] is True


def test_new_ids_of_the_same_wish_leave_it_committed_and_previous_alone(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    manifest.commit(state)
    manifest.edit(state, identify(7))
    assert manifest.current(state)["programs"]["pair"]["program_ids"] == {"verdict": 7}
    assert manifest.current(state)["committed"] is True
    assert digests(state) == ["v2", "v1"]


def test_ids_of_another_boot_are_forgotten_by_the_next_edit(state, monkeypatch):
    manifest.edit(state, want("v1"))
    manifest.edit(state, identify(7))
    monkeypatch.setattr(manifest, "boot_id", lambda: "another boot")
    assert not manifest.ids_valid(manifest.current(state))
    manifest.edit(state, lambda document: document["wanted"].update(mode="drain"))
    document = manifest.current(state)
    assert document["programs"]["pair"]["program_ids"] == {}
    assert document["boot_id"] == "another boot"


def test_unknown_keys_are_kept(state):
    manifest.edit(state, lambda document: document.update(later={"a": 1}))
    manifest.edit(state, want("v1"))
    assert manifest.current(state)["later"] == {"a": 1}


def test_only_what_the_links_name_stays(state):
    for number in range(5):
        manifest.edit(state, want(f"v{number}"))
        manifest.commit(state)
    kept = {os.path.basename(os.readlink(os.path.join(state, name))) for name in (manifest.CURRENT, manifest.PREVIOUS)}
    assert set(os.listdir(os.path.join(state, manifest.DIRECTORY))) == kept


def test_objects_are_those_of_all_programs():
    document = manifest.empty()
    document["programs"] = {"a": {"object_sha256": "2"}, "b": {"object_sha256": "1"}, "c": {}}
    assert manifest.objects(document) == ["1", "2"]
    assert manifest.objects(None) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"schema": 1', "Expecting ',' delimiter"),
        ("[1]", "not a manifest"),
        ('{"schema": "1"}', "not a manifest"),
        ('{"schema": 1}', "committed is missing"),
        ("\udcff", "codec can't decode"),
    ],
)
def test_a_damaged_manifest_names_the_file_and_the_cure(state, text, reason):
    manifest.edit(state, want("v1"))
    with open(os.path.join(state, manifest.CURRENT), "wb") as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))
    for use in (manifest.current, manifest.commit, lambda where: manifest.amend(where, want("v2"))):
        with pytest.raises(SockredirError) as caught:
            use(state)
        line = str(caught.value)
        assert line.startswith(f"the manifest {state}/current is damaged: ")
        assert reason in line
        assert "run the role again" in line
        assert manifest.damage(state) == line
    assert manifest.known(state) is None
    manifest.edit(state, want("v2"))
    assert manifest.damage(state) is None
    assert digests(state) == ["v2", None]
    assert manifest.current(state)["committed"] is False


@pytest.mark.parametrize(
    ("key", "value"), [("programs", []), ("attachments", {}), ("boot_id", 7), ("programs", {"a": 1})]
)
def test_a_section_of_another_type_is_damage(state, key, value):
    manifest.edit(state, want("v1"))
    damage(state, json.dumps(dict(manifest.current(state), **{key: value})))
    with pytest.raises(SockredirError, match=r"is damaged.*(programs|attachments|boot_id)"):
        manifest.current(state)


def test_another_schema_is_not_damage(state):
    manifest.edit(state, want("v1"))
    damage(state, json.dumps(dict(manifest.current(state), schema=2)))
    with pytest.raises(SockredirError, match="has schema 2, this version knows 1; use the version"):
        manifest.current(state)


def test_a_link_to_nothing_is_damage(state):
    manifest.edit(state, want("v1"))
    os.unlink(os.path.realpath(os.path.join(state, manifest.CURRENT)))
    with pytest.raises(SockredirError, match=r"points to manifests/00000001.json, which is not there"):
        manifest.current(state)


@pytest.mark.parametrize("failing", ["write", "link"])
def test_a_failed_write_leaves_the_old_manifest(state, monkeypatch, failing):
    manifest.edit(state, want("v1"))
    manifest.commit(state)

    def full(*_args, **_kwargs):
        raise SockredirError("cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic_file, failing, full)
        with pytest.raises(SockredirError, match="No space left"):
            manifest.edit(state, want("v2"))
    assert digests(state)[0] == "v1"
    manifest.edit(state, want("v2"))
    assert digests(state) == ["v2", "v1"]


def test_nothing_to_commit(tmp_path):
    with pytest.raises(SockredirError, match="no manifest"):
        manifest.commit(str(tmp_path))


def test_a_change_by_hand_is_damage_until_the_next_edit(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    damage(state, json.dumps(dict(read(state, manifest.CURRENT), wanted={"mode": "drain"})))
    with pytest.raises(manifest.Damaged, match="changed by hand"):
        manifest.current(state)
    assert manifest.known(state)["wanted"] == {"mode": "drain"}
    manifest.edit(state, lambda document: None)
    assert manifest.damage(state) is None
    assert manifest.current(state)["committed"] is False
    assert manifest.previous(state) is None


def test_a_change_of_form_alone_is_none(state):
    manifest.edit(state, want("v1"))
    damage(state, json.dumps(read(state, manifest.CURRENT)))
    assert manifest.damage(state) is None


def test_an_amendment_leaves_previous_and_committed_alone(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    manifest.commit(state)
    manifest.amend(state, lambda document: document["settings"].update(mode="drain"))
    assert manifest.current(state)["settings"] == {"mode": "drain"}
    assert manifest.current(state)["committed"] is True
    assert digests(state) == ["v2", "v1"]


def rolled_back(state):
    manifest.begin_rollback(state)
    manifest.commit(state)


def test_rolling_back_twice_is_back(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    manifest.commit(state)
    rolled_back(state)
    assert digests(state) == ["v1", "v2"]
    rolled_back(state)
    assert digests(state) == ["v2", "v1"]
    assert manifest.current(state)["committed"] is True


def with_programs(**ids):
    def change(document):
        pins = {name: f"/bpf/{name}" for name in ids}
        entry = {"digest": str(ids), "pins": pins, "program_ids": ids, "map_pins": {}, "map_ids": {}}
        document["programs"]["pair"] = entry

    return change


@pytest.mark.parametrize(
    ("before", "now", "leaving"),
    [
        ({"sockops": 1}, {"sockops": 2, "receive": 3}, {"/bpf/receive": 3}),
        ({"sockops": 1, "receive": 2}, {"sockops": 3}, None),
        ({"sockops": 1}, {"sockops": 2}, None),
    ],
)
def test_rolling_back_takes_along_the_pins_that_only_the_later_one_has(state, before, now, leaving):
    manifest.edit(state, with_programs(**before))
    manifest.commit(state)
    manifest.edit(state, with_programs(**now))
    manifest.commit(state)
    assert manifest.begin_rollback(state)["programs"]["pair"].get(manifest.LEAVING_PINS) == leaving
    manifest.commit(state)
    assert manifest.LEAVING_PINS not in manifest.current(state)["programs"]["pair"]


def test_a_rollback_that_was_killed_goes_on_and_not_back(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    manifest.commit(state)
    manifest.begin_rollback(state)
    assert manifest.current(state)["committed"] is False
    manifest.begin_rollback(state)
    manifest.edit(state, identify(7))
    manifest.begin_rollback(state)
    manifest.commit(state)
    assert digests(state) == ["v1", "v2"]
    assert manifest.ROLLING_BACK not in manifest.current(state)


def test_rolling_back_drops_an_unfinished_change(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    rolled_back(state)
    assert digests(state) == ["v1", None]
    assert len(os.listdir(os.path.join(state, manifest.DIRECTORY))) == 1
    with pytest.raises(SockredirError, match="no previous manifest"):
        manifest.begin_rollback(state)


def test_a_damaged_previous_is_no_way_back(state):
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    with open(os.path.join(state, manifest.PREVIOUS), "w", encoding="utf-8") as stream:
        stream.write("{}")
    with pytest.raises(manifest.Damaged, match="previous is damaged"):
        manifest.begin_rollback(state)
    assert digests_now(state) == "v2"
    manifest.forget_previous(state)
    assert digests(state) == ["v2", None]


def digests_now(state):
    return manifest.current(state)["programs"]["pair"]["digest"]


def test_put_back_undoes_all_since_the_snapshot(state):
    bare = manifest.snapshot(state)
    manifest.edit(state, want("v1"))
    manifest.commit(state)
    manifest.edit(state, want("v2"))
    manifest.commit(state)
    saved = manifest.snapshot(state)
    for version in ("v3", "v4"):
        manifest.edit(state, want(version))
        manifest.commit(state)
    manifest.put_back(state, saved)
    assert digests(state) == ["v2", "v1"]
    assert manifest.current(state)["committed"] is True
    manifest.put_back(state, bare)
    assert manifest.current(state) is manifest.previous(state) is None
    assert os.listdir(os.path.join(state, manifest.DIRECTORY)) == []
