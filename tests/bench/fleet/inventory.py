# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a large inventory costs the controller: ``python3 tests/bench/fleet/inventory.py --names 1000 --hosts 40``.

Runs as root on one machine. So many enabled hosts stand for many more: each has several names in the inventory, and is
audited under each of them, in check mode as always, so the controller has the work of a fleet of that size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from support.collection import map_collection

map_collection()

from bench.fleet.bench import PING, Cost, measure
from support.fleet import Fleet, local_fleet


class Large(Fleet):
    """A fleet whose hosts have several names."""

    def spread(self, names: int) -> None:
        """:param names: how many there are in the inventory from now on."""
        self.hosts, self.names = self.names, [f"n{number:05}" for number in range(1, names + 1)]
        self.write_inventory({})

    def variables(self, name: str) -> dict:
        if name.startswith("n"):
            name = self.hosts[int(name[1:]) % len(self.hosts)]
        return super().variables(name)


def _show(what: str, cost: Cost, names: int) -> None:
    print(
        f"{what}: {cost.seconds * names:.0f} s, {cost.seconds * 1000:.0f} ms a host, {cost.peak_kib / 1024:.0f} MiB",
        flush=True,
    )


def run(fleet: Large, names: int, forks: int, ping: bool) -> None:
    """Enable the hosts, give them their names, and ask all of those."""
    _show("enable", measure(fleet, "enable_sockredir.yml", forks), len(fleet.names))
    fleet.spread(names)
    if ping:
        _show("ping", measure(fleet, PING, forks), names)
    _show("audit", measure(fleet, "audit_sockredir.yml", forks), names)
    for report in sorted(fleet.base.glob("sockredir-audit.*")):
        print(f"{report.name}: {report.stat().st_size / 2**20:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=40)
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--ping", action="store_true", help="compare with ansible.builtin.ping")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sockredir-bench-") as base, local_fleet(
        Path(base), options.hosts, kind=Large
    ) as fleet:
        run(fleet, options.names, options.forks, options.ping)


if __name__ == "__main__":
    main()
