# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timer that has the counters written to a file for the node exporter's textfile collector."""

from __future__ import annotations

import os
import re
from typing import Dict, List, Optional

from ..errors import SockredirError
from . import files, systemd

SERVICE = "sockredir-metrics.service"
TIMER = "sockredir-metrics.timer"
#: What is written; the collector reads every file that ends like this.
METRICS = "sockredir.prom"
# What would have a meaning of its own in a unit file is left out.
_DIRECTORY = re.compile(r"(/[A-Za-z0-9._+@:-]+)+/?")
_WRITES = re.compile(r"^ExecStart=\S+ counters --textfile (\S+)$", re.MULTILINE)

_SERVICE_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
# Made by the Ansible collection ebpf.sockredir; goes when it is disabled.
[Unit]
Description=Counters of redirected local TCP connections for the node exporter
After={unit}

[Service]
Type=oneshot
# If this fails, the file stays as it was, and its age tells.
ExecStart={launcher} counters --textfile {metrics}
TimeoutStartSec=30
# It reads maps and writes one file.
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_BPF CAP_NET_ADMIN CAP_DAC_OVERRIDE
RestrictAddressFamilies=AF_UNIX
IPAddressDeny=any
RestrictNamespaces=yes
SystemCallFilter=@system-service bpf
ProtectSystem=strict
ReadWritePaths=-{directory}
ProtectHome=read-only
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
{hardening}
"""

_TIMER_TEXT = """\
# SPDX-License-Identifier: GPL-3.0-or-later
# Made by the Ansible collection ebpf.sockredir; goes when it is disabled.
[Unit]
Description=Counters of redirected local TCP connections, every minute

[Timer]
OnActiveSec=0
OnUnitActiveSec=60
AccuracySec=1

[Install]
WantedBy=timers.target
"""


def metrics_file(directory: str, check: bool) -> str:
    """The file that is written.

    :param directory: the one that the node exporter reads (``--collector.textfile.directory``).
    :param check: whether an earlier task may make it yet.
    :raises SockredirError: there is no such directory, or it cannot be named in a unit.
    """
    if not _DIRECTORY.fullmatch(directory):
        raise SockredirError(f"textfile_dir: {directory!r} is not a plain absolute path", "choose another directory")
    if not check and not os.path.isdir(directory):
        cure = "install the node exporter, or give the directory that it reads"
        raise SockredirError(f"textfile_dir: there is no directory {directory}", cure)
    return os.path.join(os.path.normpath(directory), METRICS)


def paths(unit_dir: str) -> List[str]:
    """The unit files, and the symlink that enables the timer."""
    wants = os.path.join(unit_dir, "timers.target.wants", TIMER)
    return [os.path.join(unit_dir, SERVICE), os.path.join(unit_dir, TIMER), wants]


def unit_files(unit_dir: str, launcher: str, metrics: str) -> Dict[str, files.File]:
    """What is at :func:`paths`.

    :param metrics: the file that is written.
    """
    service, timer, wants = paths(unit_dir)
    rest = {"directory": os.path.dirname(metrics), "hardening": systemd.HARDENING.strip()}
    text = _SERVICE_TEXT.format(unit=systemd.UNIT, launcher=launcher, metrics=metrics, **rest)
    return {service: files.File(text), timer: files.File(_TIMER_TEXT), wants: files.symlink(timer)}


def written_by(unit_dir: str) -> Optional[str]:
    """The file that the service on this host writes, by its unit file; None if there is none of ours."""
    found = files.read(paths(unit_dir)[0])
    names = _WRITES.search(found.text) if found and not found.link else None
    return names.group(1) if names else None
