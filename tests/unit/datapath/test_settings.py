# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import pytest
from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath import settings, settings_value
from ansible_collections.ebpf.sockredir.plugins.module_utils.errors import SockredirError

OPTIONS = {
    "mode": "enforce",
    "ports": [],
    "exclude_ports": [],
    "cidrs": [],
    "cross_netns": False,
    "budget": 1 << 20,
    "demote_below": 30000,
    "demote_after": 32,
}


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ([], []),
        (["80"], ["80"]),
        ([80, "443"], ["80", "443"]),
        (["8000-8099", "80"], ["80", "8000-8099"]),
        (["80-90", "85-100"], ["80-100"]),
        (["80", "81", "82-83"], ["80-83"]),
        (["1-65535", "7"], ["1-65535"]),
        ([" 80 - 90 "], ["80-90"]),
    ],
)
def test_ports_are_joined_and_sorted(asked, kept):
    assert settings.normal(dict(OPTIONS, ports=asked))["ports"] == kept
    assert settings.normal(dict(OPTIONS, exclude_ports=asked))["exclude_ports"] == kept


@pytest.mark.parametrize("port", ["0", "65536", "90-80", "http", "", "80-", "-80", "80,81"])
@pytest.mark.parametrize("option", ["ports", "exclude_ports"])
def test_no_ports(port, option):
    with pytest.raises(SockredirError, match=f"^{option}: "):
        settings.normal(dict(OPTIONS, **{option: [port]}))


def test_networks_come_once_and_in_order():
    asked = ["fd00::/8", "10.2.0.0/16", "10.1.0.0/16", "10.1.0.0/255.255.0.0", "192.0.2.1"]
    assert settings.normal(dict(OPTIONS, cidrs=asked))["cidrs"] == [
        "10.1.0.0/16",
        "10.2.0.0/16",
        "192.0.2.1/32",
        "fd00::/8",
    ]


@pytest.mark.parametrize("cidr", ["10.1.2.3/8", "10.0.0.0/33", "all", ""])
def test_no_networks(cidr):
    with pytest.raises(SockredirError, match="^cidrs: "):
        settings.normal(dict(OPTIONS, cidrs=[cidr]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("budget", 1),
        ("demote_below", -1),
        ("demote_after", 0),
        ("cross_netns", True),
        ("ports", [str(port) for port in range(1, 80, 2)]),
        ("cidrs", [f"10.{number}.0.0/16" for number in range(17)]),
    ],
)
def test_what_the_programs_cannot_follow_is_refused(option, value):
    with pytest.raises(SockredirError, match=r"^settings: "):
        settings.normal(dict(OPTIONS, **{option: value}))


def test_the_manifests_form_and_the_maps_form_are_one():
    wanted = settings.normal(
        dict(
            OPTIONS,
            mode="observe",
            ports=["80", "8000-8099"],
            exclude_ports=["81"],
            cidrs=["10.0.0.0/8", "::ffff:10.0.0.0/104", "fd00::/8"],
            cross_netns=True,
        )
    )
    there_and_back = settings_value.decode_settings(settings_value.encode_settings(settings.to_layout(wanted)))
    assert settings.normal(settings.from_layout(there_and_back)) == settings.normal(wanted)


def test_a_manifest_with_a_hole_is_named():
    with pytest.raises(SockredirError, match="settings: 'budget' is missing"):
        settings.to_layout({"mode": "enforce"})
    with pytest.raises(SockredirError, match="settings: 'STOP' is missing or unknown"):
        settings.to_layout(dict(OPTIONS, mode="stop"))
