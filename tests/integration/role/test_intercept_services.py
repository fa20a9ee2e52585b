# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``sockredir_intercepts`` with services: the role's order, with a stand-in for systemd that only its modules see."""

from __future__ import annotations

import uuid

import pytest
from support.host import cgroup2_mount, remove_cgroup
from support.interception import Namer
from support.systemd import Systemd

#: A mount namespace in which systemd seems to run, and its systemctl is the stand-in.
_BOOTED = 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && PATH="$0/bin:$PATH" exec "$@"'
ATTACH = "Attach the programs of interception"


@pytest.fixture
def init(site, tmp_path):
    """The accelerated cgroup is a slice by its name."""
    name = f"sockredirtest{uuid.uuid4().hex[:8]}.slice"
    made = Systemd(tmp_path, site.directory / "units", cgroup2_mount(), ["app.service", "proxy.service"])
    site.variables["sockredir_cgroup"], site.cgroup = name, cgroup2_mount() / name
    yield made
    remove_cgroup(site.cgroup)


def play(site, init, what, *rules, **variables):
    prefix = ("unshare", "--mount", "sh", "-c", _BOOTED, str(init.directory))
    return getattr(site, what)(variables={"sockredir_intercepts": list(rules), **variables}, prefix=prefix)


def test_proxies_come_before_the_programs_that_are_sent_to_them(site, init):
    stem = site.cgroup.name[: -len(".slice")]
    apps, proxy = (site.cgroup / f"{stem}-web_{kind}.slice" for kind in ("apps", "proxy"))
    rule = {"name": "web", "apps": ["app"], "proxy": ["proxy"]}
    with Namer() as listener:
        done = play(site, init, "enable", {**rule, "to": [listener.port]}).ok()
        order = [f"{ATTACH} to the proxies' cgroups", "Start the proxies in their slices", ATTACH]
        assert done.changed[-4:] == [*order, "Write the rules of interception"]
    starts = [words[-1] for words in init.calls() if words[0] in ("start", "restart") and site.cgroup.name not in words]
    assert list(dict.fromkeys(starts)) == [proxy.name, "proxy.service", apps.name, "app.service"]
    assert starts.count(proxy.name) == starts.count(apps.name) == 2, "before the programs, and with the unit files"
    assert site.ask("status")["drift"] == []
    init.calls()
    play(site, init, "disable", sockredir_restart_services=True).ok()
    restarted = [words[-1] for words in init.calls() if words[0] == "restart"]
    assert restarted == ["app.service", "proxy.service"]
    assert init.state["runs_in"] == dict.fromkeys(restarted, "system.slice")
    assert site.traces() == []
