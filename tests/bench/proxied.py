# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to a local proxy: each subject has a network namespace of its own, with cgroups of programs and of the proxy."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Dict, Iterator, List, Optional

from ansible_collections.ebpf.sockredir.plugins.module_utils.datapath.intercept import End
from support import datapath
from support.interception import Interception, interception
from support.netns import netns

from .names import ACCELERATED, INTERCEPTED, REDIRECT
from .subjects import Subject, subjects

#: Where the server is, an address of the namespace's loopback device; and the proxy's listener.
FAR, PROXY, PROXY_PORT = "198.18.79.1", "127.0.0.1", 15001
#: What iptables knows the proxy by: its own connections are not to come back to it.
PROXY_GROUP = 1337


def client_of(subject: Subject) -> Subject:
    """The programs of a subject; its server is one of them."""
    return subject._replace(cgroup=subject.cgroup / "apps")


def proxy_of(subject: Subject) -> Subject:
    return subject._replace(cgroup=subject.cgroup / "proxy")


@contextlib.contextmanager
def proxied(names: List[str], cpu: Optional[int] = None) -> Iterator[Dict[str, Subject]]:
    """The subjects of these names, ready to be used."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(subjects(names, cpu=cpu))
        for name, subject in made.items():
            place = stack.enter_context(netns())
            place.run("ip", "addr", "add", f"{FAR}/32", "dev", "lo")
            made[name] = subject._replace(netns=place.name, together=True)
            _way(stack, made[name])
        yield made


def _way(stack: contextlib.ExitStack, subject: Subject) -> None:
    """What brings connections to the proxy."""
    pins = subject.directory / "bpf"
    if subject.name == REDIRECT:
        match = ["-p", "tcp", "-d", FAR, "-m", "owner", "!", "--gid-owner", str(PROXY_GROUP)]
        command = ["iptables", "-t", "nat", "-A", "OUTPUT", *match, "-j", "REDIRECT", "--to-ports", str(PROXY_PORT)]
        subprocess.run(["ip", "netns", "exec", str(subject.netns), *command], check=True)
    if subject.name in (INTERCEPTED, ACCELERATED):
        pins.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", str(pins)], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", str(pins)], check=True)
        _intercept(stack.enter_context(interception(subject.cgroup, pins / "intercept")))
    else:
        for group in (client_of(subject), proxy_of(subject)):
            group.cgroup.mkdir()
    if subject.name == ACCELERATED:
        own = stack.enter_context(datapath.redirection(subject.cgroup, pins / "sockredir", subject.directory / "state"))
        own.set()


def _intercept(programs: Interception) -> None:
    programs.write(programs.rule(End(PROXY, PROXY_PORT)))
