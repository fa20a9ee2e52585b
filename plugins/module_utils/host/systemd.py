# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd: the unit that restores at boot, drop-ins that move services, and asking who runs where."""

from __future__ import annotations

import os
import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ..command import run
from ..errors import SockredirError
from . import files

UNIT = "sockredir.service"
UNIT_DIR = "/etc/systemd/system"
DROP_IN = "50-sockredir.conf"
#: After the other: of two that name a slice, the later name counts.
INTERCEPT_DROP_IN = "51-sockredir-intercept.conf"
DROP_INS = (DROP_IN, INTERCEPT_DROP_IN)
_RUNNING = "/run/systemd/system"  # sd_booted(3)
_SERVICE = re.compile(r"[A-Za-z0-9:_.@\\-]+\.service$")
_TIMEOUT = 120

_UNIT_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
# Made by the Ansible collection ebpf.sockredir; goes when it is disabled.
[Unit]
Description=Redirection of local TCP connections
DefaultDependencies=no
RequiresMountsFor={paths}
Wants=network-pre.target{slice}
After=local-fs.target{slice}
Before=network-pre.target network.target basic.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={launcher} restore
TimeoutStartSec=90
# Restore loads and attaches BPF programs, mounts /sys/fs/bpf, makes cgroups, writes its state, and tries one connection
# on 127.0.0.1. Nothing here may be an option that gives the unit mounts of its own (ProtectSystem=, ProtectHome=,
# PrivateTmp= and others, see PrivateMounts= in systemd.exec(5)): a bpffs that it mounts there goes when it ends, with
# all that is pinned in it.
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_RESOURCE
RestrictAddressFamilies=AF_UNIX AF_INET
IPAddressAllow=localhost
IPAddressDeny=any
RestrictNamespaces=yes
SystemCallFilter=@system-service bpf mount
ProtectHostname=yes
{hardening}

[Install]
WantedBy=multi-user.target
"""

#: What any unit of ours can do without; none of it gives a unit mounts of its own.
HARDENING = """\
DevicePolicy=closed
LockPersonality=yes
NoNewPrivileges=yes
ProtectClock=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
"""

_DROP_IN_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
# Made by the Ansible collection ebpf.sockredir; goes when the service is no longer listed there.
[Unit]
After={unit}

[Service]
Slice={slice}
"""


def booted() -> bool:
    """Whether systemd runs this host."""
    return os.path.isdir(_RUNNING)


def unit_files(unit_dir: str, launcher: str, state_dir: str, slice_name: Optional[str]) -> Dict[str, files.File]:
    """The unit and the symlink that enables it, by path.

    It runs before the network is set up, and before whatever has the usual dependencies (a network.target orders
    only if something wants it), so that no service has a connection yet; hence without them itself. They would
    also make a cycle with services that set up the network early (cloud-init does).

    :param slice_name: str, the slice whose cgroup is accelerated: it is started, so that systemd keeps its cgroup.
    """
    text = _UNIT_TEXT.format(
        launcher=launcher,
        paths=" ".join(sorted({os.path.dirname(launcher), state_dir})),
        slice=f" {slice_name}" if slice_name else "",
        hardening=HARDENING.strip(),
    )
    return {
        os.path.join(unit_dir, UNIT): files.File(text),
        wants_link(unit_dir): files.symlink(os.path.join(unit_dir, UNIT)),
    }


def wants_link(unit_dir: str) -> str:
    """The symlink that ``systemctl enable`` would make."""
    return os.path.join(unit_dir, "multi-user.target.wants", UNIT)


def drop_in_path(unit_dir: str, service: str, name: str = DROP_IN) -> str:
    return os.path.join(unit_dir, service + ".d", name)


def is_of_rules(path: str) -> bool:
    """Whether a file is a drop-in for interception: it belongs to the rules, not to the host's services."""
    return os.path.basename(path) == INTERCEPT_DROP_IN


def drop_in(slice_name: str) -> files.File:
    """What puts a service in a slice, from its next start on."""
    return files.File(_DROP_IN_TEXT.format(unit=UNIT, slice=slice_name))


def drop_ins(unit_dir: str, *kinds: str) -> List[str]:
    """The services that have one of our drop-ins.

    :param kinds: names of drop-ins; without any, all of ours.
    """
    try:
        names = os.listdir(unit_dir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    services = [name[:-2] for name in names if name.endswith(".service.d")]
    return sorted(service for service in services if _has_drop_in(unit_dir, service, kinds or DROP_INS))


def _has_drop_in(unit_dir: str, service: str, kinds: Sequence[str]) -> bool:
    return any(os.path.lexists(drop_in_path(unit_dir, service, kind)) for kind in kinds)


def service_name(name: str) -> str:
    """The full name of a service; ``redis`` is ``redis.service``.

    :raises SockredirError: it cannot be the name of a service.
    """
    full = name if name.endswith(".service") else name + ".service"
    if not _SERVICE.match(full):
        raise SockredirError(f"services: {name!r} is not the name of a service", "give names as systemctl shows them")
    return full


def slice_of(cgroup: str) -> Optional[str]:
    """The slice unit of a cgroup; None if it does not belong to a slice.

    :param cgroup: str, relative to the cgroup2 mount; ``a.slice/a-b.slice`` is the cgroup of ``a-b.slice``
        (systemd.slice(5)).
    """
    parts = [part for part in cgroup.split("/") if part]
    name = parts[-1] if parts else ""
    stem = name[: -len(".slice")]
    if not name.endswith(".slice") or not stem:
        return None
    words = stem.split("-")
    expected = ["-".join(words[: count + 1]) + ".slice" for count in range(len(words))]
    return name if parts == expected else None


class Service(NamedTuple):
    """A service as systemd has it now.

    :ivar known: whether there is such a unit.
    :ivar cgroup: where its processes are, relative to the cgroup2 mount; empty when it does not run.
    :ivar slice: where its next start puts it.
    :ivar sockets: the socket units that start it; its listeners are theirs.
    """

    name: str
    known: bool
    cgroup: str
    slice: str
    sockets: Tuple[str, ...] = ()

    def inside(self, cgroup: str) -> bool:
        """Whether it runs in a cgroup or below."""
        return (self.cgroup + "/").startswith("/" + cgroup.strip("/") + "/")


def services(names: Sequence[str]) -> List[Service]:
    """What systemd says of services; it is not asked when there are none.

    :raises SockredirError: systemd does not answer.
    """
    if not names:
        return []
    shown = _shown(["Id", "LoadState", "ControlGroup", "Slice", "TriggeredBy"], names)
    if len(shown) != len(names):
        raise SockredirError(f"systemctl show answered for {len(shown)} of {len(names)} services", detail=str(shown))
    return [_service(name, block) for name, block in zip(names, shown)]


def _service(name: str, shown: Dict[str, str]) -> Service:
    known = shown.get("LoadState") not in ("not-found", None)
    triggers = shown.get("TriggeredBy", "").split()
    sockets = tuple(sorted(each for each in triggers if each.endswith(".socket")))
    return Service(name, known, shown.get("ControlGroup", ""), shown.get("Slice", ""), sockets)


def active_in(patterns: Sequence[str]) -> Dict[str, str]:
    """The slices of the units that are active, by name.

    :param patterns: names of units, or globs that match them.
    :raises SockredirError: systemd does not answer.
    """
    if not patterns:
        return {}
    shown = _shown(["Id", "ActiveState", "Slice"], patterns)
    return {each["Id"]: each.get("Slice", "") for each in shown if each.get("ActiveState") == "active"}


def _shown(properties: Sequence[str], names: Sequence[str]) -> List[Dict[str, str]]:
    shown = systemctl(["show", "--property=" + ",".join(properties), "--", *names])
    return [_properties(block) for block in re.split(r"\n\n+", shown.strip())]


def running_in(cgroup: str) -> List[str]:
    """The services with processes in a slice, by the names of its cgroups.

    :param cgroup: str, absolute.
    """
    try:
        with os.scandir(cgroup) as entries:
            names = [entry.name for entry in entries if _SERVICE.match(entry.name) and entry.is_dir()]
    except OSError:
        return []
    return sorted(names)


def waiting(found: Iterable[Service], listed: Sequence[str], released: Sequence[str], cgroup: str) -> List[str]:
    """The running services that are not where their next start will put them.

    :param listed: services that have, or are to have, one of our drop-ins.
    :param released: services that lose theirs now.
    :param cgroup: str, relative, of our slice.
    """
    ours = slice_of(cgroup)
    return sorted(
        service.name for service in found if service.cgroup and _moves(service, listed, released, cgroup, ours)
    )


def _moves(service: Service, listed: Sequence[str], released: Sequence[str], cgroup: str, ours: Optional[str]) -> bool:
    if service.name in listed:
        return not service.inside(cgroup)
    # Others may be there on their own unit's word, and stay.
    return service.inside(cgroup) and (service.name in released or service.slice != ours)


def reload() -> None:
    """Make systemd read unit files again."""
    systemctl(["daemon-reload"])


def start(name: str) -> None:
    """Start a unit; a slice, so that systemd keeps its cgroup while nothing is in it."""
    systemctl(["start", "--", name])


def has_unit_file(name: str) -> bool:
    """Whether a unit is somebody's by a file; a slice that was only started by its name is not."""
    return any(each.get("FragmentPath") for each in _shown(["FragmentPath"], [name]))


def knows_slice(name: str) -> bool:
    """Whether a slice is more than a name: it has a unit file, or a service that has one is put there."""
    if has_unit_file(name):
        return True
    listed = systemctl(["list-unit-files", "--type=service", "--full", "--plain", "--no-legend"])
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    # A template has no slice, only what is started from it.
    whole = [each for each in names if not each.endswith("@.service")]
    return bool(whole) and any(each.get("Slice") == name for each in _shown(["Slice"], whole))


def active(name: str) -> bool:
    """Whether a unit runs; one that systemd does not know does not."""
    return name in active_in([name])


def stop(*names: str) -> None:
    """Stop units; a slice only if it is not :func:`occupied`, since systemd would stop what is in it, too."""
    systemctl(["stop", "--", *names])


def occupied(slice_name: str) -> bool:
    """Whether a unit is active in a slice or below it.

    Its cgroup does not tell: that of a service that remains after its processes have ended is gone.
    """
    active = active_in(["*"])
    return any(lies_in(where, slice_name) for name, where in active.items() if not name.endswith(".slice"))


def stop_idle(slice_name: str) -> bool:
    """Stop a slice unless it is :func:`occupied`; whether it was stopped."""
    if occupied(slice_name):
        return False
    stop(slice_name)
    return True


def lies_in(inner: str, outer: str) -> bool:
    """Whether a slice is another one or below it; ``a-b.slice`` is below ``a.slice``."""
    return inner == outer or inner.startswith(outer[: -len(".slice")] + "-")


def restart(names: Sequence[str]) -> None:
    """Restart services; waits until they have started.

    :raises SockredirError: one of them failed to.
    """
    if names:
        systemctl(["restart", "--", *names])


def systemctl(arguments: Sequence[str]) -> str:
    """Run systemctl, bounded in time.

    :raises SockredirError: it failed; its words are in the detail.
    """
    command = ["systemctl", "--no-ask-password", "--no-pager", *arguments]
    done = run(command, _TIMEOUT)
    errors = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode:
        said = errors.splitlines()[0] if errors else f"exit code {done.returncode}"
        raise SockredirError(f"{' '.join(command)}: {said}", "look at journalctl -xe", errors)
    return done.stdout.decode("utf-8", "replace")


def _properties(block: str) -> Dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
