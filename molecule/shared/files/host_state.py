# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Notes what a change of this host would show in, or compares it with a note made before.

host_state.py save FILE
host_state.py compare FILE      names every difference; without one, removes the note
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

TREES = ("/etc", "/usr/local", "/usr/lib/systemd", "/var/lib/sockredir", "/sys/fs/bpf", "/root")
# Ansible's own, and what any login writes.
PASSING = ("/root/.ansible", "/root/.cache", "/root/.ssh", "/root/.lesshst")


def files() -> dict:
    """Path -> kind, mode, owner, size and time of change of all that lies in the trees."""
    found = {}
    for tree in TREES:
        for directory, _directories, names in os.walk(tree):
            if directory.startswith(PASSING):
                continue
            for path in [directory, *(os.path.join(directory, name) for name in names)]:
                told = os.lstat(path)
                # Directories of /root change with Ansible's temporary files.
                when = None if path == "/root" else told.st_mtime_ns
                found[path] = [oct(told.st_mode), told.st_uid, told.st_gid, told.st_size if when else None, when]
    return found


def cgroups() -> list:
    """The cgroups but those of logins and of services that come and go with them."""
    slices = []
    for directory, names, _files in os.walk("/sys/fs/cgroup"):
        names[:] = [name for name in names if not name.startswith(("user", "session-", "init.scope"))]
        slices.extend(os.path.join(directory, name) for name in names if name.endswith(".slice"))
    return sorted(slices)


def packages() -> list:
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return sorted(listed.stdout.splitlines())


def mounts() -> list:
    with open("/proc/self/mounts", encoding="ascii", errors="surrogateescape") as table:
        return sorted(line.split()[1] for line in table)


def state() -> dict:
    return {
        "files": files(),
        "packages": dict.fromkeys(packages(), True),
        "cgroups": dict.fromkeys(cgroups(), True),
        "mounts": dict.fromkeys(mounts(), True),
    }


def differences(before: dict, after: dict) -> list:
    """One line for each thing that came, went or changed."""
    lines = []
    for kind in before:
        old, new = before[kind], after[kind]
        lines.extend(f"{kind}: {name} is new" for name in sorted(set(new) - set(old)))
        lines.extend(f"{kind}: {name} is gone" for name in sorted(set(old) - set(new)))
        both = sorted(set(old) & set(new))
        lines.extend(f"{kind}: {name}: {old[name]} -> {new[name]}" for name in both if old[name] != new[name])
    return lines


def main(verb: str, note: str) -> int:
    if verb == "save":
        with open(note, "w", encoding="utf-8") as file:
            json.dump(state(), file)
        return 0
    with open(note, encoding="utf-8") as file:
        found = differences(json.load(file), state())
    if found:
        print("\n".join(found))
        return 1
    os.unlink(note)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
