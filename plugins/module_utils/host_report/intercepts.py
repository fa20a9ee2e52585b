# Copyright: sockredir contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interception rules of a host, whether their proxies listen, and what has happened."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ..datapath import intercept_live
from ..host import listeners
from ..resource.intercept.observe import recorded
from . import intercept_notes


def report(pin_dir: str, document: Optional[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """The manifest's ``rules`` with their counters; None if nothing of interception is loaded.

    Only the network namespace of the run is searched for proxies.

    :returns: ``rules``, each with ``listening`` (for each address in ``to``, whether somebody listens there) and
        ``events`` (how often each); ``notes``, see :mod:`.intercept_notes`; ``other``, the events of no rule;
        ``pending``, the connections under way to a proxy.
    :raises SockredirError: a map may not be read.
    """
    counts = intercept_live.counters(pin_dir)
    if counts is None:
        return None
    rules = recorded(document)
    heard = listeners.listeners() if rules else set()
    return {
        "rules": [
            {
                **rule,
                "listening": {end: listeners.is_heard(end, heard) for end in rule["to"]},
                "events": counts[rule["slot"]],
            }
            for rule in rules
        ],
        "notes": intercept_notes.observe(rules),
        "other": counts[0],
        "pending": intercept_live.pending(pin_dir),
    }
